"""Run functions that `frameworks.py` sends: a line of JSON comes in and goes out, arrays travel as safetensors

It runs in the environment of a framework, so it needs NumPy and safetensors and nothing else."""
import json, os, sys, time, traceback
from pathlib import Path
import numpy as np
from safetensors.numpy import load_file, save_file


def pack(
    value, # Of dicts, lists, text, numbers and arrays
    arrays, # Dict that the arrays are added to
): # The value as JSON can hold it: each array replaced by its key
    "Take the arrays out of a value"
    if isinstance(value, dict): return {k: pack(v, arrays) for k, v in value.items()}
    if isinstance(value, (list, tuple)): return [pack(v, arrays) for v in value]
    if isinstance(value, np.generic): return value.item()
    if not isinstance(value, np.ndarray): return value
    key = f'array-{len(arrays)}'
    arrays[key] = np.ascontiguousarray(value).reshape(value.shape)
    return {'$array': key}


def unpack(
    value, # From `pack`
    arrays, # Key to array
): # The value with its arrays
    "Put the arrays back"
    if isinstance(value, list): return [unpack(v, arrays) for v in value]
    if not isinstance(value, dict): return value
    if value.keys() == {'$array'}: return arrays[value['$array']]
    return {k: unpack(v, arrays) for k, v in value.items()}


def write(
    folder, # Where the arrays go
    name, # Of their file
    value, # To send
): # Text for the other side
    "A value as a line of JSON, with its arrays in a file beside it"
    arrays = {}
    line = json.dumps(pack(value, arrays))
    if arrays: save_file(arrays, Path(folder)/name)
    return line


def read(
    folder, # Where the arrays are
    name, # Of their file, removed once it is read
    line, # From `write`
): # The value
    "The value that the other side sent"
    file = Path(folder)/name
    arrays = load_file(file) if file.exists() else {}
    file.unlink(missing_ok=True)
    return unpack(json.loads(line), arrays)


def answer(
    request, # 'define' with a source and its file name, or 'call' with a name and its arguments
    space, # The names that were defined so far
): # What the other side gets
    "Define functions, or call one and time it"
    if 'define' in request:
        exec(compile(request['define'], request['file'], 'exec'), space)
        return {}
    wall, cpu = time.perf_counter(), time.process_time()
    value = space[request['call']](*request['args'], **request['kwargs'])
    return dict(value=value, wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)


def main(folder):
    "Answer until the input ends; what a framework prints goes to stderr"
    out = os.fdopen(os.dup(1), 'w', encoding='utf-8')
    os.dup2(2, 1)
    space = {'np': np}
    for line in sys.stdin:
        try: reply = write(folder, 'answer', answer(read(folder, 'request', line), space))
        except Exception as e:
            traceback.print_exc()
            reply = json.dumps(dict(error=f'{type(e).__name__}: {e}'))
        print(reply, file=out, flush=True)


if __name__ == '__main__': main(sys.argv[1])
