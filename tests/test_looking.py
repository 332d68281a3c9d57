from foldsmith.utils.memo import once, one_look


def test_within_a_look_things_are_found_once():
    calls = []

    def find():
        calls.append(None)
        return len(calls)

    assert [once("a", find), once("a", find)] == [1, 2]
    with one_look():
        assert [once("a", find), once("b", find), once("a", find)] == [3, 4, 3]
        with one_look():
            assert [once("a", find), once("c", find)] == [3, 5]
        assert once("c", find) == 5
    assert once("a", find) == 6
