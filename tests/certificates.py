"""Certificates of a test's own: an authority, and what it certifies."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = timedelta(days=1)


class Authority:
    """Certifies for a day around now, or for the days that are named."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        own = self._begun(self._name, self._key, -1, 1).add_extension(x509.BasicConstraints(True, None), critical=True)
        self.certificate = self._written(own, f"{name}.pem")
        """Its own, by which others are verified."""

    def certify(self, name: str, host: str = "127.0.0.1", *, begins: int = -1, ends: int = 1) -> tuple[Path, Path]:
        """Return the files of a certificate for that host, and of its key; it begins and ends so many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        there = x509.IPAddress(ip_address(host)) if host[0].isdecimal() else x509.DNSName(host)
        made = self._begun(_named(name), key, begins, ends)
        made = made.add_extension(x509.SubjectAlternativeName([there]), critical=False)
        kept = self.folder / f"{name}.key"
        kept.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return self._written(made, f"{name}.pem"), kept

    def _begun(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, begins: int, ends: int
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return x509.CertificateBuilder(
            self._name, name, key.public_key(), x509.random_serial_number(), now + begins * _DAY, now + ends * _DAY
        )

    def _written(self, made: x509.CertificateBuilder, name: str) -> Path:
        path = self.folder / name
        path.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return path


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
