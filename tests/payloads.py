"""Texts that a stranger could put into a row so that some format executes, interprets or breaks on them."""

from __future__ import annotations

HTML = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</style></title></textarea><svg onload=alert(1)>",
    "<img src=x onerror=alert(1)>",
    '"><img src=x onerror="alert(1)">',
    "' autofocus onfocus='alert(1)",
    '<a href="javascript:alert(1)">x</a>',
    "<iframe src='data:text/html,<script>alert(1)</script>'></iframe>",
    "<!-- --><b>x</b><!--",
    "]]><script>alert(1)</script>",
    "<details open ontoggle=alert(1)>",
    "&lt;b&gt;&amp;&#60;script&#62;&nbsp",
    "${alert(1)} {{7*7}} <%= 7 %>",
    "__proto__",
)
LINKS = (
    "javascript:alert(1)",
    " JaVaScRiPt:alert(1)",
    "data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==",
    "vbscript:msgbox(1)",
    'https://evil.example/a b"onmouseover=alert(1)//',
    "file:///etc/passwd",
)
MARKDOWN = (
    "[x](javascript:alert(1))",
    "![x](https://evil.example/x.png)",
    "[x][1]\n\n[1]: https://evil.example",
    "<https://evil.example>",
    "https://evil.example www.evil.example me@evil.example",
    "a|b | c \\| d",
    "*a* **b** _c_ __d__ ~~e~~ `f` ``g` h``",
    "# heading",
    "- item\n- item\n1. item",
    "> quote\n\n---\n***",
    "```\ncode\n```",
    "\\",
    "ends in a backslash \\",
    ":smile: @somebody #1 GH-1 $x^2$",
    "[^1]",
)
LATEX = (
    "\\input{/etc/passwd}",
    "\\write18{touch canary}",
    "\\immediate\\write18{touch canary}",
    "}\\end{tabular}\\end{table}\\end{document}",
    "100 % & more # of $x_1^2$ ~ {a} \\ b",
    "^^5cinput{x}",
    "\\catcode`\\%=12",
    "\\def\\x{\\x}\\x",
    "unbalanced { brace",
    "unbalanced } brace",
    "`` '' -- --- ?` !` << >> ,,",
    "[2mm] * \\\\[9999pt]",
)
SPREADSHEET = (
    '=HYPERLINK("https://evil.example","x")',
    "=cmd|' /C calc'!A0",
    "+1+cmd|' /C calc'!A0",
    "-1+1",
    "@SUM(A1:A9)",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "  =1+1",
    "\u00a0=1+1",
    "\u200b=1+1",
    "\uff1d1+1",
    'quote " comma , semicolon ; "" \' end',
)
TERMINAL = (
    "\x1b[31mred\x1b[0m",
    "\x1b[2J\x1b[H\x1b[?25l",
    "\x1b]8;;https://evil.example\x07x\x1b]8;;\x07",
    "\x1b]8;;https://evil.example\x1b\\x\x1b]8;;\x1b\\",
    "\x1b]52;c;ZXZpbA==\x07",
    "\x1b]0;title\x07",
    "\x1bP+q544e\x1b\\",
    "\x9b31mred\x9d0;title\x9c",
    "a\rb\x08c\x7fd\x00e\x07f\x0bg\x0ch",
    "[bold red]x[/bold red]",
    "[/] [link=https://evil.example]x[/link] \\[x]",
)
UNICODE = (
    "\u202egnp.exe\u202c",
    "\u2066\u2067\u2068x\u2069\u200e\u200f\u061c",
    "\u05d0\u05d1\u05d2 \u0645\u0631\u062d\u0628\u0627",
    "zero\u200bwidth\u200cjoin\u200der\ufeff\u2060",
    "\u2028line\u2029paragraph\x85next",
    "a\u0300\u0301\u0302\u0303" + "\u0336" * 40,
    "\U000e0001\U000e0041\U000e007f",
    "\ue000\U0010fffd\ufffe\uffff\ufdd0",
    "\U0001f600 \u4e2d\u6587 \u00e9\u00df\u0130\u0131",
    "\u00ad\u034f\u115f\u3164\u180e",
)
LENGTH = ("a" * 5000, "word " * 1000, " ", "<" * 2000, "../../../../etc/passwd", "a\nb\r\nc\n\nd")

PAYLOADS = (*HTML, *LINKS, *MARKDOWN, *LATEX, *SPREADSHEET, *TERMINAL, *UNICODE, *LENGTH)
