from p2pcore._fast.layer import Layer, Mailbox

class Bottom(Layer):
    is_closed: bool
    @property
    def mailbox(self) -> Mailbox | None: ...
    def abort(self) -> None: ...
