from typing import final

from OpenSSL.SSL import Connection

from p2pcore._fast.crypto.secure import Cork

@final
class TlsChannel(Cork):
    def __new__(cls, connection: Connection) -> TlsChannel: ...

def take_input(connection: Connection) -> bytes: ...
def take_output(connection: Connection) -> bytes: ...
