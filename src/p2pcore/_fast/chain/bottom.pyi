from p2pcore._fast.chain.layer import Layer, Mailbox

class Bottom(Layer):
    is_closed: bool
    held: int
    waits: int
    bytes_in: int
    bytes_out: int
    @property
    def mailbox(self) -> Mailbox | None: ...
    def open_mailbox(self) -> Mailbox: ...
    def abort(self) -> None: ...
