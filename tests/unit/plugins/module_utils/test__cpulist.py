# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.erni_ki.inference.plugins.module_utils._cpulist import MAX_NUMBER, format_cpulist, parse_cpulist

NUMBERS = st.sets(st.integers(0, MAX_NUMBER), max_size=60) | st.sets(st.integers(0, 40))


@pytest.mark.parametrize("text, numbers", [
    ("", []),
    ("\n", []),
    ("0", [0]),
    ("0-6,8-14", [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14]),
    ("7,15\n", [7, 15]),
    (" 3 , 1-2 ", [1, 2, 3]),
    ("5,5,4-5", [4, 5]),
    ("3-3", [3]),
    ("0-15:1/2", [0, 2, 4, 6, 8, 10, 12, 14]),
    ("0-9:2/4", [0, 1, 4, 5, 8, 9]),
    ("1-7:4/4", [1, 2, 3, 4, 5, 6, 7]),
    ("65535", [65535]),
    (7, [7]),
])
def test_parse(text, numbers):
    assert parse_cpulist(text) == numbers


@pytest.mark.parametrize("text, message", [
    ("foo", "'foo' in 'foo' is neither a number nor a range such as 0-6"),
    ("9" * 5000, "is neither a number nor a range"),
    ("0-6,", "'' in '0-6,' is neither a number nor a range such as 0-6"),
    ("0,,2", "'' in '0,,2' is neither"),
    ("-1", "'-1' in '-1' is neither"),
    ("1.5", "'1.5' in '1.5' is neither"),
    ("(null)", "'(null)' in '(null)' is neither"),
    ("0-62:2", "'0-62:2' in '0-62:2' is neither"),
    ("1-2-3", "'1-2-3' in '1-2-3' is neither"),
    ("0-2 4", "'0-2 4' in '0-2 4' is neither"),
    ("٣", "'٣' in '٣' is neither"),
    ("6-0", "the range '6-0' in '6-0' runs backwards; write 0-6"),
    ("65536", "65536 in '65536' is beyond any CPU number (65535 at most)"),
    ("0-99999999999", "99999999999 in '0-99999999999' is beyond any CPU number"),
    ("0-7:0/2", "the stride in '0-7:0/2' must use between 1 and all of its group"),
    ("0-7:3/2", "the stride in '0-7:3/2' must use between 1 and all of its group"),
    ("0-7:1/0", "the stride in '0-7:1/0' must use between 1 and all of its group"),
])
def test_parse_refuses(text, message):
    with pytest.raises(ValueError) as failure:
        parse_cpulist(text)
    assert message in str(failure.value)


@pytest.mark.parametrize("numbers, text", [
    ([], ""),
    ([0], "0"),
    ([0, 1], "0-1"),
    ([0, 1, 2, 8], "0-2,8"),
    ([14, 8, 9, 8], "8-9,14"),
    ({3, 1}, "1,3"),
    (iter(range(16)), "0-15"),
])
def test_format(numbers, text):
    assert format_cpulist(numbers) == text


@given(NUMBERS)
def test_what_is_formatted_is_parsed_again(numbers):
    assert parse_cpulist(format_cpulist(numbers)) == sorted(numbers)


@given(NUMBERS)
def test_the_text_is_the_shortest(numbers):
    text = format_cpulist(numbers)
    assert len(text.split(",")) == max(1, sum(n - 1 not in numbers for n in numbers))


@given(st.text(alphabet="0123456789-,:/ x\n", max_size=20))
def test_any_text_is_a_list_or_a_message(text):
    try:
        numbers = parse_cpulist(text)
    except ValueError as error:
        assert text.strip()
        assert "'" in str(error)
    else:
        assert numbers == sorted(set(numbers))
        assert parse_cpulist(format_cpulist(numbers)) == numbers
