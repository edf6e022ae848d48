"""The tests of tidegate. Folders mirror src/tidegate; process, interop, conformance and browser run the whole daemon."""
