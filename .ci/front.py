"""The headline of the front page comes from the benchmark: check that it does, or draw its figure again.

usage: python .ci/front.py [--write]

The numbers are the stored outputs of nbs/benchmarks/training.ipynb. After that page has been run again, --write draws
nbs/images/accuracy-over-seconds.svg anew; without it, the check names each number of nbs/index.ipynb that is old.
"""
import json, re, sys
from html import unescape
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
BENCHMARK, INDEX = ROOT/'nbs/benchmarks/training.ipynb', ROOT/'nbs/index.ipynb'
FIGURE = ROOT/'nbs/images/accuracy-over-seconds.svg'
# The lines that the figure shows: the runs of the benchmark that each joins, its name, its colour, and where the name stands.
SHOWN = [(('fastai',), 'fastai', '#7f7f7f', (215, 81.0)),
         (('solve, 96 px', 'solve, 128 px', 'solve, 224 px', 'two networks, 224 px'),
          'cnn_finetune: solved head', '#d95f02', (40, 88.4)),
         (('top, Lite2, 224 px, mirrored',), 'cnn_finetune: then the top stage', '#1f77b4', (105, 93.2))]


def tables():
    "The stored HTML tables of the benchmark, each as a list of rows of texts."
    for cell in nbformat.read(BENCHMARK, as_version=4).cells:
        for output in cell.get('outputs', []):
            html = output.get('data', {}).get('text/html', '')
            rows = re.findall(r'<tr.*?</tr>', html, re.S)
            if rows: yield [[unescape(c) for c in re.findall(r'<t[hd][^>]*>(.*?)</t[hd]>', r, re.S)] for r in rows]


def headline():
    "Median, least and greatest of each comparison, by its name."
    for rows in tables():
        found = {row[0]: [float(v) for v in row[1:]] for row in rows if len(row) == 4 and row[0]}
        if 'times sooner' in found: return found
    sys.exit(f'{BENCHMARK.name} stores no table with a row "times sooner"')


def curves():
    "Line to its points: least, median and greatest seconds, then accuracy."
    found, run = {}, None
    for rows in tables():
        for row in rows:
            if len(row) == 8: run = row[0]
            if len(row) in (7, 8) and re.fullmatch(r'\d+', row[-7]):
                found.setdefault(run, []).append([float(v) for v in row[-6:]])
    missing = [run for runs, *_ in SHOWN for run in runs if run not in found]
    if missing: sys.exit(f'{BENCHMARK.name} stores no curve of {", ".join(missing)}')
    return {label: [point for run in runs for point in found[run]] for runs, label, *_ in SHOWN}


def facts():
    "What the front page says, as (number, what it is)."
    h = headline()
    times, accuracy, theirs = (h[k][0] for k in ('times sooner', "fastai's final accuracy", 'seconds'))
    ours = h['ours reaches it after'][0]
    return [(f'{times:.0f} times', 'how much sooner'), (f'{accuracy:.1f} %', "fastai's final accuracy"),
            (f'{theirs:.0f} s', 'seconds of fastai'), (f'{ours:.0f} s', 'seconds of ours')]


def draw():
    "Draw the figure, with its numbers in it."
    import matplotlib
    matplotlib.use('svg')
    import matplotlib.pyplot as plt
    plt.rcParams.update({'font.size': 9, 'svg.hashsalt': 'cnn_finetune', 'figure.constrained_layout.use': True})
    data, h = curves(), headline()
    goal, theirs, ours = (h[k][0] for k in ("fastai's final accuracy", 'seconds', 'ours reaches it after'))
    ax = plt.subplots(figsize=(4.9, 1.8))[1]
    ax.axhline(goal, lw=.8, ls=':', color='#444')
    for _, label, color, place in SHOWN:
        rows = data[label]
        seconds, low, middle, high = zip(*((r[1], *r[3:]) for r in rows))
        ax.fill_between(seconds, low, high, color=color, alpha=.2, lw=0)
        ax.plot(seconds, middle, 'o-', color=color, ms=2.5, lw=1.5)
        ax.text(*place, label, color=color, va='center')
    ax.annotate('', (ours, goal), (theirs, goal), arrowprops=dict(arrowstyle='->', color='#444', lw=1))
    ax.text(theirs*.62, goal + .5, f'{h["times sooner"][0]:.0f} times sooner', color='#444', ha='center')
    ax.set(xlabel='seconds, from the folder of photographs', ylabel='accuracy, %', xlim=(0, theirs*1.03), ylim=(78.5, 97.5))
    ax.spines[['top', 'right']].set_visible(False)
    FIGURE.parent.mkdir(exist_ok=True)
    plt.savefig(FIGURE, metadata=dict(Date=None, Description=json.dumps(data)))
    text = '\n'.join(line.rstrip() for line in FIGURE.read_text(encoding='utf-8').splitlines())
    FIGURE.write_text(text + '\n', encoding='utf-8', newline='\n')


def drawn():
    "The numbers that the figure was drawn from."
    found = re.search(r'<dc:description>(.*?)</dc:description>', FIGURE.read_text(encoding='utf-8'), re.S)
    return json.loads(unescape(found[1])) if found else None


def main():
    if '--write' in sys.argv[1:]: draw()
    text = ' '.join(c.source for c in nbformat.read(INDEX, as_version=4).cells if c.cell_type == 'markdown')
    text = text.replace('\xa0', ' ')
    old = [f'nbs/index.ipynb does not say {number} ({what}), which nbs/benchmarks/training.ipynb stores'
           for number, what in facts() if number not in text]
    if drawn() != curves(): old.append(f'{FIGURE.relative_to(ROOT)} shows other numbers; '
                                       'run python .ci/front.py --write')
    if old: sys.exit('\n'.join(old))
    print(', '.join(number for number, _ in facts()))


if __name__ == '__main__':
    main()
