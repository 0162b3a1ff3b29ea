import pytest

from gateway.errors import SandboxUnusable
from gateway.sandbox.syscalls import program


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_program_is_whole_instructions_that_end_in_a_return(machine: str) -> None:
    rules = program(machine)

    assert len(rules) % 8 == 0
    assert rules[-8:] == bytes.fromhex("0600 0000 0000ff7f".replace(" ", ""))


def test_a_machine_whose_numbers_are_unknown_has_no_sandbox() -> None:
    with pytest.raises(SandboxUnusable, match="not on riscv64"):
        program("riscv64")
