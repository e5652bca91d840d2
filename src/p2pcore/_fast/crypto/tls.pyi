from typing import final

from OpenSSL.SSL import Connection

from p2pcore._fast.crypto.openssl import SslEnd
from p2pcore._fast.crypto.secure import Cork

@final
class TlsChannel(Cork):
    def __new__(cls, connection: Connection | SslEnd) -> TlsChannel: ...

def take_input(connection: Connection | SslEnd) -> bytes: ...
def take_output(connection: Connection | SslEnd) -> bytes: ...
