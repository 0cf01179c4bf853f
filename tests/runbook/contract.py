"""The commands of the operations runbook that this service was built to, line by line: a contract with operators."""

COMMANDS = r"""
redis-cli -h redis-service ping
redis-cli -h redis-service info memory
kubectl logs -l app=onesource --since=10m | grep "redis_error"
kubectl restart deployment/redis
kubectl wait --for=condition=ready pod -l app=redis --timeout=60s
redis-cli -h redis-service
> INFO memory
> EVAL "return redis.call('DEL', unpack(redis.call('KEYS', 'conv:*')))" 0
kubectl set env deployment/onesource REDIS_SOCKET_TIMEOUT_MS=500
kubectl set env deployment/onesource REDIS_CONNECT_TIMEOUT_MS=200
kubectl set env deployment/onesource CONV_STORE_PRIMARY=mongo
kubectl delete pod -l app=redis
kubectl wait --for=condition=ready pod -l app=redis --timeout=120s
kubectl exec -it deployment/onesource -- redis-cli -h redis-service ping
kubectl set env deployment/onesource CONV_STORE_PRIMARY=redis
kubectl logs -l app=onesource --since=30m | grep "msg_count_before" | tail -20
> KEYS conv:*
> GET conv:test_session_123
kubectl exec -it deployment/onesource -- env | grep CONV_TTL
kubectl set env deployment/onesource CONV_DUAL_WRITE=1
kubectl rollout status deployment/onesource
curl http://localhost:8001/healthz
kubectl set env deployment/onesource CONV_DUAL_WRITE=0
kubectl logs -f -l app=onesource | grep -E "(redis_error|persist_error)"
> MEMORY USAGE conv:sample_key
> TTL conv:sample_key
kubectl set env deployment/onesource CONV_TTL_SECONDS=1728000  # 20 days
kubectl set env deployment/onesource REDIS_SOCKET_TIMEOUT_MS=100
kubectl set env deployment/onesource REDIS_CONNECT_TIMEOUT_MS=50
kubectl exec -it deployment/redis -- redis-cli BGSAVE
kubectl cp redis-pod:/data/dump.rdb ./redis-backup-$(date +%Y%m%d).rdb
redis-cli -h redis-service info replication
redis-cli -h redis-service info clients
redis-cli -h redis-service eval "return #redis.call('keys', 'conv:*')" 0
redis-cli -h redis-service --scan --pattern "conv:*" | head -5 | xargs redis-cli -h redis-service mget
curl -X POST http://localhost:8001/api/chat/ask \
-H "Content-Type: application/json" \
-d '{"question":"Test conversation memory","session_id":"redis_test_123"}'
-d '{"question":"What did I just ask about?","session_id":"redis_test_123"}'
""".strip().splitlines()
