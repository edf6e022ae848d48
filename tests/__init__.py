"""The tests: folders mirror src/tidegate; process, interop, conformance and browser run the whole daemon."""
