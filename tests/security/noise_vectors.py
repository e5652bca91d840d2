"""Noise vectors: flynn/noise (`BARE`), cacophony (`PROLOGUE`), and two whole libp2p handshakes. Data only."""

# ruff: noqa: E501

from __future__ import annotations

from typing import Final, NamedTuple


class XXVector(NamedTuple):
    """One run of the XX pattern; bytes. `transport` is (from the initiator, plaintext, ciphertext), in order."""

    prologue: bytes
    init_static: bytes
    init_ephemeral: bytes
    resp_static: bytes
    resp_ephemeral: bytes
    payloads: tuple[bytes, bytes, bytes]
    messages: tuple[bytes, bytes, bytes]
    handshake_hash: bytes
    k1: bytes
    k2: bytes
    transport: tuple[tuple[bool, bytes, bytes], ...]


BARE: Final = XXVector(
    prologue=b"",
    init_static=bytes(range(32)),
    init_ephemeral=bytes(range(0x20, 0x40)),
    resp_static=bytes(range(1, 0x21)),
    resp_ephemeral=bytes(range(0x41, 0x61)),
    payloads=(b"", b"", b""),
    messages=(
        bytes.fromhex("358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254"),
        bytes.fromhex(
            "64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d484663414af878d3e46a2f58911a816d6e8346d4ea17a6f2a0bb4ef4ed56c133cff4560a34e36ea82109f26cf2e5a5caf992b608d55c747f615e5a3425a7a19eefb8f"
        ),
        bytes.fromhex(
            "87f864c11ba449f46a0a4f4e2eacbb7b0457784f4fca1937f572c93603e9c4d97e5ea11b16f3968710b23a3be3202dc1b5e1ce3c963347491e74f5c0768a9b42"
        ),
    ),
    handshake_hash=bytes.fromhex("9542b10ef534ed52859a8be801ecec0a152d0e03d25fda532218079628357622"),
    k1=bytes.fromhex("4759d15f0f4cfb9c3cef133e60b44ea3479cae90880a7e71df96f111d78d5953"),
    k2=bytes.fromhex("a8b5dce3cef845d63c9671c350eb15cbb50b6c6d5f0d3231d32d711dab1ed191"),
    transport=(
        (
            True,
            b"yellowsubmarine",
            bytes.fromhex("a52ef02ba60e12696d1d6b9ef4245c88fca757b6134ad6e76b56e310a6adf6"),
        ),
        (
            False,
            b"submarineyellow",
            bytes.fromhex("2445aa438ebd649281c636cc7269ca82f1d9023d72520943aeabf909cdf521"),
        ),
    ),
)
PROLOGUE: Final = XXVector(
    prologue=bytes.fromhex("4a6f686e2047616c74"),
    init_static=bytes.fromhex("e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1"),
    init_ephemeral=bytes.fromhex("893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a"),
    resp_static=bytes.fromhex("4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893"),
    resp_ephemeral=bytes.fromhex("bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b"),
    payloads=(
        bytes.fromhex("4c756477696720766f6e204d69736573"),
        bytes.fromhex("4d757272617920526f746862617264"),
        bytes.fromhex("462e20412e20486179656b"),
    ),
    messages=(
        bytes.fromhex(
            "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79444c756477696720766f6e204d69736573"
        ),
        bytes.fromhex(
            "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f14480884381cbad1f276e038c48378ffce2b65285e08d6b68aaa3629a5a8639392490e5b9bd5269c2f1e4f488ed8831161f19b7815528f8982ffe09be9b5c412f8a0db50f8814c7194e83f23dbd8d162c9326ad"
        ),
        bytes.fromhex(
            "c7195ffacac1307ff99046f219750fc47693e23c3cb08b89c2af808b444850a80ae475b9df0f169ae80a89be0865b57f58c9fea0d4ec82a286427402f113e4b6ae769a1d95941d49b25030"
        ),
    ),
    handshake_hash=bytes.fromhex("c8e5f64e846193be2a834104c2a009868d6c9f3bd3c186299888b488b2f1f58e"),
    k1=bytes.fromhex("3062fff068d0abd171b4b4603c5b7633bf5ee4e79da311370c2eba7f1ed6c69a"),
    k2=bytes.fromhex("cbabb3f5e4529fc0e93efda9b4b70169270c04b05c5be25f71e9c55f7955c86a"),
    transport=(
        (
            False,
            bytes.fromhex("4361726c204d656e676572"),
            bytes.fromhex("96763ed773f8e47bb3712f0e29b3060ffc956ffc146cee53d5e1df"),
        ),
        (
            True,
            bytes.fromhex("4a65616e2d426170746973746520536179"),
            bytes.fromhex("3e40f15f6f3a46ae446b253bf8b1d9ffb6ed9b174d272328ff91a7e2e5c79c07f5"),
        ),
        (
            False,
            bytes.fromhex("457567656e2042f6686d20766f6e2042617765726b"),
            bytes.fromhex("eb3f3515110702e047a6c9da4478b6ead94873c11c0f2d710ddb3f09fce024b3a58502ae3f"),
        ),
    ),
)


class Step(NamedTuple):
    """The state after one step of handshake A; hex, "-" for none."""

    name: str
    h: str
    ck: str
    k: str
    dh: str


STATIC_SECRETS: Final = (b"\x03" * 32, b"\x04" * 32)
EPHEMERAL_SECRETS: Final = (b"\x05" * 32, b"\x06" * 32)
"""Of the initiator and the responder of A and B, whose seeds are those of key_vectors."""
STATIC_PUBLICS: Final = (
    "5dfedd3b6bd47f6fa28ee15d969d5bb0ea53774d488bdaf9df1c6e0124b3ef22",
    "ac01b2209e86354fb853237b5de0f4fab13c7fcbf433a61c019369617fecf10b",
)
EPHEMERAL_PUBLICS: Final = (
    "50a61409b1ddd0325e9b16b700e719e9772c07000b1bd7786e907c653d20495d",
    "f5b2d6e60f9477e310c2982daaa6c9136c108a1777c5947e448fa37d68174557",
)
SIGNATURES: Final = (
    "cfb88e685664cc7c0737087db6b15f1244090f930750c235eae4fa48010153c48741b62fd21652ea98d9917258f3410c41d0c9011a66b7b4734d189a0614560d",
    "562c20ab970afbb7d5b4e9fdca7fafc8f43b850889cf48ae36d6b153a94b189f854c1574e906e16b0650fd2500c376f0f36da9ece49e530c9850f6c401df5004",
)


class Handshake(NamedTuple):
    """A whole libp2p handshake; hex. Frames have their length in front."""

    payload2: str
    payload3: str
    frame2: str
    frame3: str
    handshake_hash: str


FRAME1: Final = "002050a61409b1ddd0325e9b16b700e719e9772c07000b1bd7786e907c653d20495d"
A: Final = Handshake(
    payload2="0a24080112208139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b3941240562c20ab970afbb7d5b4e9fdca7fafc8f43b850889cf48ae36d6b153a94b189f854c1574e906e16b0650fd2500c376f0f36da9ece49e530c9850f6c401df5004",
    payload3="0a24080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c1240cfb88e685664cc7c0737087db6b15f1244090f930750c235eae4fa48010153c48741b62fd21652ea98d9917258f3410c41d0c9011a66b7b4734d189a0614560d",
    frame2="00c8f5b2d6e60f9477e310c2982daaa6c9136c108a1777c5947e448fa37d68174557a16cb8fafe6fcec12593015a064545f434c5c48d8d154256ecdd2012848233a50e33d4a3d058e47ae77d4c9bc84d9f93f39e2a53a7c04755fc914813fa50264b70f587f078ce9c34ac5b60070650d6312fe47cbd3d2eeab15d663b4da7b27abbffde13a63b76b5b58ef0133ed2a947862da950f165f3d23ce31ea7b842ffd050193aaabff8d88068ad072fe4f8424aba10c14b7f601c9b3051465f33704078ce545c5da01b74739f",
    frame3="00a8c7e957e82bac138ecc5726d23d172ede00b769dba6d9b94d0d9eedf12f63cd78e5cd4c1012b3d4b046f19866170133a47f57440e2f50e0a0bd9d54517a3ab83e31785d37e6f7604cd83a597c7b7c2246d7e7f5db26113d5b0f6ad76469469deb59e69d811aff324889da1eb92d22df7b11ac48052cb16bdbec526ef8dd3c44f13707edb888b47c93d96373c90a467f4240764e1431312a51ccae87272b3a86aa5e6c2214e9644b0c",
    handshake_hash="eafd1a727e0af8f9d83999385ed410300e29795a6c8b7c80ed5771046e5e2b4f",
)
STEPS: Final = (
    Step(
        "init",
        "f3d15e6108ed9556171207baa58f97d29a13c6be40595166066e2e0958dc002d",
        "4e6f6973655f58585f32353531395f436861436861506f6c795f534841323536",
        "-",
        "-",
    ),
    Step(
        "msg1",
        "b3c0bf1562425d57485486d699995c231b376c507db07b05f4c9ac9bb2cc1ad1",
        "4e6f6973655f58585f32353531395f436861436861506f6c795f534841323536",
        "-",
        "-",
    ),
    Step(
        "ee",
        "ce173ebe46d6207dbf64689eff38d587c2c0b66569f27d6f1d998734cbbe610a",
        "4c08ee7956baa66bcea1d9081c696a1047c0ceb0bd0e60b69b9aad2d70c79912",
        "aa1f886e11c3d56c1ecfc25d2cc4340787c16c0b48dd2edf55e25ae332ad53fa",
        "edfa360a9633ca9b6fe655be8849389323ae3a3444866567f463c8e2c80bbb5a",
    ),
    Step(
        "s(resp)",
        "02fb1fb5f7fb62e4be2a4ef578e41b1f68534d6177bac257047255e4673417e9",
        "4c08ee7956baa66bcea1d9081c696a1047c0ceb0bd0e60b69b9aad2d70c79912",
        "aa1f886e11c3d56c1ecfc25d2cc4340787c16c0b48dd2edf55e25ae332ad53fa",
        "-",
    ),
    Step(
        "es",
        "02fb1fb5f7fb62e4be2a4ef578e41b1f68534d6177bac257047255e4673417e9",
        "5aad54cd07c502a72988654b671aa64f56e851793a85ac540531d121461357a4",
        "37c5dc8a25d1a2f05fd0158ad620400a8543afd2dfb31000560205b932605d97",
        "58557580e1cd010d91e9b9bfbc8aeaf0045835ad240f5e4037a8ba0d1a50250e",
    ),
    Step(
        "payload2",
        "0ae2465b9fcc6128173979795f88edea50a409d741b680d8bc7c5714fa4a5422",
        "5aad54cd07c502a72988654b671aa64f56e851793a85ac540531d121461357a4",
        "37c5dc8a25d1a2f05fd0158ad620400a8543afd2dfb31000560205b932605d97",
        "-",
    ),
    Step(
        "s(init)",
        "203209a1b7919c3a5cbabd733dac334b330f474e11f0b17e752bb05bc44f5406",
        "5aad54cd07c502a72988654b671aa64f56e851793a85ac540531d121461357a4",
        "37c5dc8a25d1a2f05fd0158ad620400a8543afd2dfb31000560205b932605d97",
        "-",
    ),
    Step(
        "se",
        "203209a1b7919c3a5cbabd733dac334b330f474e11f0b17e752bb05bc44f5406",
        "259f91cb8c79028e72246dd336a7d70217298c7541e43d551396478ac24524b8",
        "38ab5116f05e4f145106ff81fb43f72d39703b160e515c33120ffca0953e164d",
        "16bf30cd65488e7ae1701158ad81d3feee9e6209f2089beda9f66280eb461674",
    ),
    Step(
        "payload3",
        "eafd1a727e0af8f9d83999385ed410300e29795a6c8b7c80ed5771046e5e2b4f",
        "259f91cb8c79028e72246dd336a7d70217298c7541e43d551396478ac24524b8",
        "38ab5116f05e4f145106ff81fb43f72d39703b160e515c33120ffca0953e164d",
        "-",
    ),
)
K1: Final = "56d4e8d25e8541ddae77f0fcaaa069c9ec79a48fc73e3745285714a8f400f28f"
K2: Final = "1dc96e79ff231dcd53515072f873ce4e77616801224dd46df24fbc0d48c7a932"
TRANSPORT: Final = (
    # from the initiator, nonce, plaintext, frame
    (
        True,
        0,
        "132f6d756c746973747265616d2f312e302e300a0d2f79616d75782f312e302e300a",
        "003254990734413cf5cc5e7ea7ab34712c244765e21efa3669a7171fbbd21da7886e64875a67d3af1fafa4542453883b85324925",
    ),
    (
        False,
        0,
        "132f6d756c746973747265616d2f312e302e300a0d2f79616d75782f312e302e300a",
        "00323cc1ce4c51633a6c01cef6bcae653280f9c99ffabfddca5502322065eea1fe4584b0e8b714ccd88a20feee9f07a0a474872e",
    ),
    (True, 1, "68656c6c6f", "00156618ef3d5a18d5ad32d4ab58ab6b33c7fe327df07a"),
    (False, 1, "", "0010e6caafc14f090188c0c88e4216eb114c"),
)
LARGEST_STARTS: Final = "ffff47b66a412d489cbf2a0cc2ca595e1d0a"
LARGEST_ENDS: Final = "360cddbad56601335914aee234c6a31c"
LARGEST_SHA256: Final = "d464ff82bd1ea0c68b645f591fd596a41cb562ad79d81d39932394cd5b9571a8"
"""65,519 zero bytes, K1, nonce 0: one frame of 65,537 bytes."""

B: Final = Handshake(
    payload2="0a24080112208139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b3941240562c20ab970afbb7d5b4e9fdca7fafc8f43b850889cf48ae36d6b153a94b189f854c1574e906e16b0650fd2500c376f0f36da9ece49e530c9850f6c401df5004221c120c2f79616d75782f312e302e30120c2f6d706c65782f362e372e30",
    payload3="0a24080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c1240cfb88e685664cc7c0737087db6b15f1244090f930750c235eae4fa48010153c48741b62fd21652ea98d9917258f3410c41d0c9011a66b7b4734d189a0614560d220e120c2f79616d75782f312e302e30",
    frame2="00e6f5b2d6e60f9477e310c2982daaa6c9136c108a1777c5947e448fa37d68174557a16cb8fafe6fcec12593015a064545f434c5c48d8d154256ecdd2012848233a50e33d4a3d058e47ae77d4c9bc84d9f93f39e2a53a7c04755fc914813fa50264b70f587f078ce9c34ac5b60070650d6312fe47cbd3d2eeab15d663b4da7b27abbffde13a63b76b5b58ef0133ed2a947862da950f165f3d23ce31ea7b842ffd050193aaabff8d88068ad072fe4f8424aba10c14b7f601c9b305510f68ebbe95ef036bb8e6d4264af15db712e6a13a61706cbb8dbd66d829fa8bc65f8e0eaf388bbe2071a29b987",
    frame3="00b8c7e957e82bac138ecc5726d23d172ede00b769dba6d9b94d0d9eedf12f63cd78daacd2f5e81ddc8fae4cb5b01da202c87f57440e2f50e0a0bd9d54517a3ab83e31785d37e6f7604cd83a597c7b7c2246d7e7f5db26113d5b0f6ad76469469deb59e69d811aff324889da1eb92d22df7b11ac48052cb16bdbec526ef8dd3c44f13707edb888b47c93d96373c90a467f4240764e1431312a51de746df0bda90c4f2d5b910252d12ce3753ba66ece9a38a8830d83b6e11b66d4",
    handshake_hash="b438aa97f62bfee222c0adfb6b0bb5030bfdfbcf407cc14eda29ffcf9da093c9",
)
"""As A, with the multiplexers of the initiator and the responder in the payloads."""
B_MUXERS: Final = (("/yamux/1.0.0",), ("/yamux/1.0.0", "/mplex/6.7.0"))

LOW_ORDER: Final = (
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
)
"""X25519 public keys whose product with anything is zero."""
DOMAIN: Final = "6e6f6973652d6c69627032702d7374617469632d6b65793a"
