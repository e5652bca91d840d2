from typing import final

from OpenSSL.SSL import Context

WORKS_WITH: str

@final
class SslEnd:
    _into_ssl: object
    _from_ssl: object
    def __new__(cls, context: Context, is_server: bool) -> SslEnd: ...
    @property
    def _ssl(self) -> SslEnd: ...
    def get_context(self) -> Context: ...

def set_groups(context: Context, names: bytes) -> None: ...
def set_signatures(context: Context, names: bytes) -> None: ...
