"""CSV files as people have them: read as they are meant, or refused in one line."""

import csv
import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldsmith.errors import DataError
from foldsmith.project.csv_files import line_numbers, parse, read_texts
from foldsmith.project.tables import read_table


@pytest.fixture
def file(tmp_path):
    def write(content):
        path = tmp_path / "t.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


PLAIN = {"id": ["007", "8"], "label": ["cat", "dog"]}


@pytest.mark.parametrize(
    "content",
    [
        "id,label\n007,cat\n8,dog\n",
        "id,label\n007,cat\n8,dog",
        # Commas at the ends, of some rows or of all, and of the column names.
        "id,label\n007,cat,\n8,dog,\n",
        "id,label,\n007,cat,\n8,dog,\n",
        "id,label,\n007,cat\n8,dog,\n",
        "id,label,,\n007,cat,,\n8,dog, ,\n",
        # Blanks after commas, before quotes, around column names.
        "id, label\n007, cat\n8, dog\n",
        'id,label\n007, "cat"\n8, "dog"\n',
        " id ,label \n007,cat\n8,dog\n",
        # Rows and lines without a value, as spreadsheets leave them.
        "\n\nid,label\n007,cat\n\n8,dog\n\n\n",
        "id,label\n007,cat\n  \n8,dog\n,\n,\n , \n",
        # Other delimiters, and the line that tells Excel.
        "id;label\n007;cat\n8;dog\n",
        "id\tlabel\n007\tcat\n8\tdog\n",
        "id|label\n007|cat\n8|dog\n",
        "sep=;\nid;label\n007;cat\n8;dog\n",
        # Quotes.
        '"id","label"\n"007","cat"\n"8","dog"\n',
        # Line ends and encodings.
        "id,label\r\n007,cat\r\n8,dog\r\n",
        "id,label\r007,cat\r8,dog\r",
        "\ufeffid,label\n007,cat\n8,dog\n",
        "\ufeffid,label\n007,cat\n8,dog\n".encode("utf-16-le"),
        "\ufeffid,label\n007,cat\n8,dog\n".encode("utf-16-be"),
    ],
)
def test_what_is_meant_is_read(file, content):
    path = file(content)
    assert read_texts(path).to_dict("list") == PLAIN
    assert read_table(path, ["id", "label"], "id").to_dict("list") == PLAIN
    numbers = read_table(path, ["id", "label"], number_columns=["id"])
    assert numbers.to_dict("list") == {**PLAIN, "id": [7, 8]}


@pytest.mark.parametrize(
    ("content", "table"),
    [
        # Delimiters within quotes, doubled quotes, lines within a value, a quote of its own.
        ('id,t\n1,"a, b"\n', {"id": ["1"], "t": ["a, b"]}),
        ('id,t\n1,"a ""b"" c"\n', {"id": ["1"], "t": ['a "b" c']}),
        ('id,t\n1,"a\nb"\n2,c\n', {"id": ["1", "2"], "t": ["a\nb", "c"]}),
        ('id,t\n1,5" nail\n', {"id": ["1"], "t": ['5" nail']}),
        ('id;t\n1;"a;b"\n', {"id": ["1"], "t": ["a;b"]}),
        # More semicolons than commas, in names and values alone.
        ("id,a;b;c\n1,x\n2,y\n", {"id": ["1", "2"], "a;b;c": ["x", "y"]}),
        # Decimal commas beside semicolons; gaps; short rows.
        ("id;t\n1;0,5\n2;\n", {"id": ["1", "2"], "t": ["0,5", ""]}),
        ("id,t,u\n1,2\n2,3,4\n", {"id": ["1", "2"], "t": ["2", "3"], "u": ["", "4"]}),
        # The index that pandas writes.
        (",id\n0,a\n1,b\n", {"Unnamed: 0": ["0", "1"], "id": ["a", "b"]}),
        ("id\n1\n\n2\n", {"id": ["1", "2"]}),
        # A blank at the start is part of a value where no blank follows the names' commas.
        ("id,t\n1, a\n", {"id": ["1"], "t": [" a"]}),
        ("id,t\n", {"id": [], "t": []}),
    ],
)
def test_values_stay_as_they_stand(file, content, table):
    assert read_texts(file(content)).to_dict("list") == table


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,t\n1,0\n2,1,5\n", "line 3 has 3 values, but there are 2 column names: "),
        ("id,t\n1,0,5\n2,1,5\n", "line 2 has 3 values.* decimal commas, save .* with semicolons"),
        ("id,t\n\n1,a\n\n2,b,c\n", "line 5 has 3 values.*put quotes around a value that contains"),
        ("My table\nid,t\n1,0\n", "line 2 has 2 values, .* is 1 column name.*without a title"),
        ("id;t\n1;0\n2;1;5\n", "line 3 has 3 values.*quotes around a value that contains a semic"),
        ("id,t,t\n1,2,3\n", r"the column name 't' stands 2 times \(columns 2, 3\); give each"),
        ("id,t, t\n1,2,3\n", r"the column name 't' stands 2 times"),
        ('id,t\n1,cat\n2,"dog\n3,x\n', r'line 3: a quote \("\) is opened and never closed'),
        ('id,t\n1,"cat\n2,"dog"\n', r'line 2: a quote \("\) is opened and never closed'),
        ('id,t\n1,"cat" x\n', r'line 2: something follows a closing quote \("\) before the next c'),
        ('id,t\n1,"a\nb"\n2,"c" ,\n', "line 4: something follows a closing quote"),
        (b"", "is empty; it needs a line of column names"),
        (b"\xef\xbb\xbf\r\n \r\n", "is empty; it needs a line of column names"),
        ("id,t\r1,\u00e4\r".encode("latin-1"), "line 2 is not UTF-8 text; save the file as UTF-8"),
        ("id,t\n1,a\n".encode("utf-16-le"), "holds bytes that are no text; is it a CSV"),
        (b"PK\x03\x04 and so on", "is an Excel workbook or a ZIP file, not a CSV; save the table"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(file, content, message):
    path = file(content)
    said = set()
    for read in (read_texts, lambda path: read_table(path, ["id", "t"])):
        with pytest.raises(DataError, match=f"^{re.escape(str(path))}: {message}") as error:
            read(path)
        said.add(str(error.value))
    assert len(said) == 1
    # One line, in words of our own.
    assert "\n" not in said.pop() and not re.search("index_col|tokeniz|parser|dtype", str(error))


def test_a_doubled_name_matters_where_it_is_needed(file):
    path = file("id,t,x,x\n1,0,a,b\n")
    assert read_table(path, ["id", "t"])["x"].tolist() == ["a"]
    with pytest.raises(DataError, match=r"the column name 'x' stands 2 times \(columns 3, 4\)"):
        read_table(path, ["id", "x"])
    assert set(parse(path).doubled) == {"x"}


def test_a_wrong_value_is_named_by_the_line_that_it_stands_in(file):
    path = file('id,t\n\n1,"a\nb"\n\n2,c\n,\n2,d\n')
    assert line_numbers(path, [0, 1, 2]) == [3, 6, 8]
    with pytest.raises(DataError, match=r"'2' stands more than once .*line 8"):
        read_table(path, ["id"], "id")


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\ufeff"), max_size=6)


@settings(max_examples=40)
@given(
    rows=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5),
    delimiter=st.sampled_from(",;\t|"),
    ending=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_rows_that_are_written_are_read(tmp_path_factory, rows, delimiter, ending, encoding):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([("one", "two"), *rows])
    path = tmp_path_factory.mktemp("written") / "t.csv"
    path.write_bytes(out.getvalue().replace("\n", ending).encode(encoding))
    wanted = [row for row in rows if any(map(str.strip, row))]
    assert list(read_texts(path).itertuples(index=False, name=None)) == wanted
