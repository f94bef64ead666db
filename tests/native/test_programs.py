"""The tests that are written in C++: natively, under sanitizers, and on processors that this machine is not."""

from __future__ import annotations

import pytest

from native.building import PROGRAMS, build, build_preset, instruction_sets, run, tool


def test_there_are_programs() -> None:
    assert "test_dispatch" in PROGRAMS


@pytest.mark.parametrize("program", PROGRAMS)
def test_natively(program: str) -> None:
    folder = build()
    for name in instruction_sets(folder=folder):
        assert " 0 failures" in run(folder / program, LOQUENT_ISA=name)


def test_an_instruction_set_that_there_is_not_is_refused() -> None:
    assert " 0 failures" in run(build() / "test_dispatch", LOQUENT_ISA="mmx")


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("preset", ["sanitize", "threads"])
def test_under_sanitizers(preset: str, program: str) -> None:
    folder = build_preset(preset)
    for name in instruction_sets(folder=folder):
        options = {"LOQUENT_ISA": name, "LOQUENT_THREADS": "3", "TSAN_OPTIONS": "die_after_fork=0"}
        assert " 0 failures" in run(folder / program, **options)


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(("processor", "expected"), [("max", ["neon", "portable"]), ("cortex-a53", ["portable"])])
def test_on_64_bit_arm(processor: str, expected: list[str], program: str) -> None:
    launcher = (tool("qemu-aarch64"), "-cpu", processor, "-L", "/usr/aarch64-linux-gnu")
    folder = build_preset("aarch64")
    assert instruction_sets(*launcher, folder=folder) == expected
    for name in expected:
        assert " 0 failures" in run(*launcher, folder / program, LOQUENT_ISA=name, LOQUENT_NO_FORK="1")


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_on_the_oldest_processor_of_64_bits(program: str) -> None:
    """Code for newer processors that got into common code is an illegal instruction there."""
    launcher = (tool("qemu-x86_64"), "-cpu", "Nehalem")
    folder = build()
    assert instruction_sets(*launcher, folder=folder) == ["portable"]
    assert " 0 failures" in run(*launcher, folder / program, LOQUENT_NO_FORK="1")
