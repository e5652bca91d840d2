from p2pcore._fast.chain.layer import Layer, Mailbox

class Bottom(Layer):
    is_closed: bool
    held: int
    waits: int
    @property
    def mailbox(self) -> Mailbox | None: ...
    def open_mailbox(self) -> Mailbox: ...
    def abort(self) -> None: ...
