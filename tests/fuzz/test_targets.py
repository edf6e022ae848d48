"""The targets of the fuzzer on inputs that were kept, and on whatever hypothesis makes of those.

An input that a fuzzer found to fail goes into the corpus, under a name that says what it is. What must not live here:
what the targets check.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS
from tests.fuzz.wires import examples

CORPUS = Path(__file__).with_name("corpus")
KEPT = {name: {path.name: path.read_bytes() for path in sorted((CORPUS / name).iterdir())} for name in TARGETS}


@pytest.mark.parametrize(("target", "name"), [(target, name) for target in KEPT for name in KEPT[target]])
def test_kept_inputs(target: str, name: str) -> None:
    TARGETS[target](KEPT[target][name])


@st.composite
def changed(draw: Any, target: str) -> bytes:
    """A kept input, or two of them, with some bytes replaced, left out or put in."""
    data = draw(st.sampled_from(sorted(KEPT[target].values())))
    if draw(st.booleans()):
        data += draw(st.sampled_from(sorted(KEPT[target].values())))[3:]
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        data = data[:place] + draw(st.binary(max_size=4)) + data[place + draw(st.integers(0, 4)) :]
    return bytes(data)


@pytest.mark.parametrize("target", TARGETS)
@examples(150)
@given(data=st.data())
def test_changed_inputs(target: str, data: st.DataObject) -> None:
    TARGETS[target](data.draw(changed(target) | st.binary(max_size=100)))
