"""The addresses of the page."""

from django.urls import path

from page import views

urlpatterns = [
    path("", views.chat, name="chat"),
    path("stores/<slug:name>/<slug:verb>", views.change_store, name="change_store"),
]
