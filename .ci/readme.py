"""README.md and CONTRIBUTING.md are notebooks rendered: check that they agree, or write them.

usage: python .ci/readme.py [--write]
"""
import difflib, posixpath, re, sys
from pathlib import Path
from textwrap import indent

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent
RENDERED = {'README.md': 'nbs/index.ipynb', 'CONTRIBUTING.md': 'nbs/contributing.ipynb'}
DIRECTIVE = re.compile(r'^#\|\s*([\w-]+):?\s*(.*)$')
LINK = re.compile(r'(\]\()(?!\w+:|#|/)([^)\s]+)')  # the target of a relative Markdown link


def directives(cell):
    "The `#|` lines at the top of a cell as a dict, and the source without them."
    found, lines = {}, cell.source.splitlines()
    while lines and (match := DIRECTIVE.match(lines[0])):
        found[match[1]] = match[2].strip()
        lines.pop(0)
    return found, '\n'.join(lines)


def output_alone(cell):
    "A Markdown cell with what a cell printed, for `#| echo: false`."
    text = ''.join(o.text for o in cell.outputs if o.output_type == 'stream')
    return nbformat.v4.new_markdown_cell(indent(text.rstrip(), '    '))


def shown(notebook):
    "The notebook as its readers see it: hidden cells and directives left out."
    cells = []
    for cell in notebook.cells:
        found, cell.source = directives(cell)
        hidden = {'hide', 'default_exp', 'export', 'exporti'} & set(found) and cell.cell_type == 'code'
        if hidden or found.get('include') == 'false' or cell.cell_type == 'raw': continue
        if found.get('output') == 'false': cell.outputs = []
        cells.append(output_alone(cell) if found.get('echo') == 'false' else cell)
    notebook.cells = cells
    return notebook


def from_the_top(match):
    "A link written for nbs/, as it has to stand in a file above it."
    return match[1] + posixpath.normpath(posixpath.join('nbs', match[2]))


def render(source):
    "The Markdown text of a notebook."
    notebook = shown(nbformat.read(ROOT/source, as_version=4))
    # nbdev-clean drops the language; nbconvert names the code blocks by it.
    notebook.metadata.language_info = {'name': 'python'}
    text, resources = MarkdownExporter().from_notebook_node(notebook)
    if resources.get('outputs'):
        sys.exit(f'{source} stores an image as an output, which Markdown cannot show: save it as a file and link to it')
    text = LINK.sub(from_the_top, text)
    text = '\n'.join(line.rstrip() for line in text.splitlines())
    return re.sub(r'\n{3,}', '\n\n', text).strip() + '\n'


def difference(name, source):
    "What to change in a rendered file, or nothing."
    path, text = ROOT/name, render(source)
    now = path.read_text(encoding='utf-8') if path.exists() else ''
    if now == text: return []
    diff = difflib.unified_diff(now.splitlines(), text.splitlines(), name, source, lineterm='')
    return [f'{name} is not {source} rendered; run python .ci/readme.py --write', *diff]


def main():
    if '--write' in sys.argv[1:]:
        for name, source in RENDERED.items():
            (ROOT/name).write_text(render(source), encoding='utf-8', newline='\n')
    found = [line for pair in RENDERED.items() for line in difference(*pair)]
    if found: sys.exit('\n'.join(found))


if __name__ == '__main__':
    main()
