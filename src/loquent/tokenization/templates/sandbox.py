"""The Jinja environment of chat templates: a sandbox in which every operation is known and paid for.

Jinja's immutable sandbox keeps a template from reaching Python. This one keeps it from running away too, by a
different principle than a list of dangers: a template is parsed, every node of it must be of a known kind, and the
nodes whose cost depends on data are replaced by calls that charge the meter first. Loops, macros and blocks charge the
size of their bodies each time they run; filters, tests and methods exist only where `operations` lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import BuiltinMethodType, MethodType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, TemplateReference
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace, pass_context
from jinja2.visitor import NodeTransformer

from loquent.errors import TemplateError
from loquent.tokenization.templates import filters, operations
from loquent.tokenization.templates.meter import CAPS, ENTRY, meter, text

_KNOWN_NODES = """
Template Output TemplateData Name NSRef Const Tuple List Dict Pair Keyword CondExpr Filter Test Call
Getitem Getattr Slice Concat Compare Operand Add Sub Mul Div FloorDiv Mod Pow And Or Not Neg Pos For If Macro CallBlock
FilterBlock With Block Assign AssignBlock ExprStmt Break Continue Scope ExtensionAttribute"""
_ALLOWED_NODES = frozenset(_KNOWN_NODES.split())
_RUNTIME_OBJECTS = (BlockReference, Cycler, Joiner, LoopContext, Macro, Namespace, TemplateReference)
_BUILTIN_VALUES = (str, bytes, int, float, complex, dict, list, tuple, set, frozenset, range, type)


class GenerationBlock(Extension):
    """`{% generation %} ... {% endgeneration %}` marks what the assistant wrote.

    https://huggingface.co/docs/transformers/chat_templating_writing
    """

    tags = {"generation"}  # noqa: RUF012  (the base class declares it an instance variable)

    def parse(self, parser: Parser) -> nodes.Node:
        """The marked text, passed through `mark`."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("mark"), [], [], body).set_lineno(line)

    def mark(self, caller: Callable[[], str]) -> str:
        """The text of the block; its place is noted for `return_assistant_tokens_mask`."""
        written = caller()
        meter().mark(len(written))
        return written


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment; see the module."""

    intercepted_binops = frozenset(operations.OPERATORS)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            finalize=_printed,
            extensions=[GenerationBlock, loopcontrols],
        )
        self.binop_table = dict(operations.OPERATORS)
        self.filters = {**filters.FILTER_TABLE, **_NODE_FILTERS}
        self.tests = dict(filters.TEST_TABLE)
        self.globals = {
            "cycler": Cycler,
            "dict": dict,
            "joiner": Joiner,
            "namespace": Namespace,
            "raise_exception": operations.raise_exception,
            "range": operations.bounded_range,
            "strftime_now": operations.strftime_now,
        }

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for node in tree.find_all(nodes.Node):
            if type(node).__name__ not in _ALLOWED_NODES:
                raise jinja2.TemplateSyntaxError(
                    f"a chat template cannot use {type(node).__name__}", getattr(node, "lineno", 1) or 1
                )
        _Metering().visit(tree)
        tree.body.insert(0, _tick(tree.body))
        return tree

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute`"""
        if isinstance(obj, dict) and attribute in obj and attribute not in operations.OTHER_METHODS[dict]:
            return obj[attribute]
        method = self._method(obj, attribute)
        return super().getattr(obj, attribute) if method is None else method

    def getitem(self, obj: Any, argument: Any) -> Any:
        """`obj[argument]`"""
        if isinstance(argument, tuple):
            meter().reads(argument)
        if isinstance(argument, str) and not (isinstance(obj, dict) and argument in obj):
            method = self._method(obj, argument)
            if method is not None:
                return method
        return super().getitem(obj, argument)

    def _method(self, obj: Any, name: str) -> Callable[..., Any] | None:
        """A method of text that pays for itself."""
        if not isinstance(obj, str):
            return None
        if name in ("format", "format_map"):
            return operations.format_method(self, obj, name == "format_map")
        method = operations.STRING_METHODS.get(name)
        return None if method is None else lambda *args, **kwargs: method(obj, *args, **kwargs)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether an attribute exists for a template: data of the caller's objects does, methods of Python's values
        only where they are listed."""
        if not super().is_safe_attribute(obj, attr, value):
            return False
        if isinstance(obj, _RUNTIME_OBJECTS):
            return True
        if isinstance(obj, _BUILTIN_VALUES):
            return any(isinstance(obj, kind) and attr in names for kind, names in operations.OTHER_METHODS.items())
        return True

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call a function, a macro or a method; the result is paid for."""
        meter().charge(ENTRY * (1 + len(args) + len(kwargs)))
        if isinstance(__obj, BuiltinMethodType | MethodType | type):
            # What compares or hashes its arguments (`dict`, `get`, `loop.changed`), and the lists it searches.
            meter().reads(*args)
            if __obj.__name__ in ("count", "index") and not isinstance(__obj, type):
                meter().reads(__obj.__self__)
        result = super().call(__context, __obj, *args, **kwargs)
        return meter().made(result)


class _Metering(NodeTransformer):
    """Replaces what costs by what pays."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if node.test is not None:
            node.test = _through("!read", node.test)
        node.body.insert(0, _tick(node.body))
        return node

    def visit_body(self, node: Any) -> nodes.Node:
        """Macros, blocks and call blocks run their bodies as often as they are called."""
        self.generic_visit(node)
        node.body.insert(0, _tick(node.body))
        return node  # type: ignore[no-any-return]

    visit_Macro = visit_Block = visit_CallBlock = visit_body  # noqa: N815

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through("!concat", nodes.List(node.nodes, lineno=node.lineno))

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _through("!read", node.expr)
        for operand in node.ops:
            operand.expr = _through("!read", operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        ends = [end or nodes.Const(None) for end in (node.arg.start, node.arg.stop, node.arg.step)]
        return _through("!cut", node.node, *ends)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        for pair in node.items:
            pair.key = _through("!read", pair.key)
        return node


def _through(name: str, value: nodes.Node, *args: nodes.Node) -> nodes.Filter:
    return nodes.Filter(value, name, list(args), [], None, None, lineno=value.lineno)


def _tick(body: list[nodes.Node]) -> nodes.Node:
    """A statement that pays for running `body` once: for its nodes, and for the text in it."""
    cost = ENTRY * (1 + len(body))
    for statement in body:
        for node in statement.find_all(nodes.Node):
            literal = getattr(node, "data", None) or getattr(node, "value", None)
            cost += ENTRY + (len(literal) if isinstance(literal, str) else 0)
    line = body[0].lineno if body else 1
    return nodes.ExprStmt(_through("!tick", nodes.Const(cost, lineno=line)), lineno=line)


def _read(value: Any) -> Any:
    meter().reads(value)
    return value


# No template can write these names, and none gains by reaching them through `map`.
_NODE_FILTERS: dict[str, Callable[..., Any]] = {
    "!concat": lambda parts: operations.joined("", parts),
    "!cut": operations.cut,
    "!read": _read,
    "!tick": lambda cost: meter().charge(cost),
}


@pass_context
def _printed(context: Context, value: Any) -> str:
    """What an expression writes. Asking for the context keeps Jinja from computing constants while it compiles."""
    return text(value)


@lru_cache(maxsize=1)
def sandbox() -> Sandbox:
    """The one environment; templates share no state in it."""
    return Sandbox()


@lru_cache(maxsize=256)
def compiled(source: str) -> jinja2.Template:
    """A template ready to render.

    Raises:
        TemplateError: it is too long, or not valid Jinja.
    """
    if len(source) > CAPS.source:
        raise TemplateError(f"The chat template has {len(source)} characters; {CAPS.source} is the most.")
    try:
        return sandbox().from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"The chat template is not valid, line {error.lineno}: {error.message}") from error
    except (RecursionError, MemoryError, SyntaxError, ValueError, OverflowError) as error:
        raise TemplateError(f"The chat template cannot be compiled: {error}") from error
