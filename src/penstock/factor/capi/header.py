"""`penstock.h`: the C declarations, each with its sentence."""

from __future__ import annotations

import re

from penstock.factor.capi.library import ABI, STATUS
from penstock.factor.capi.memory import MOST

__all__ = ["header"]

_TEXT = """\
/* Factors of penstock, as a C library.

   A library holds one program: formulas that were compiled into it. A stream is the program's state for a number of
   symbols: each tick takes one row of every input and gives one row of every output, and a row is an array with one
   value per symbol, `float` or `double` as ps_program_dtype says. NaN stands for what is missing; every NaN that comes
   out is the same. Groups (sector, industry) are numbers as well.

   Errors.  Functions give PS_OK or a negative ps_status, those that give a pointer NULL; ps_error_text then says what
            was expected, what was got and what to do, until the next error of the same thread. After an error all is
            as it was before the call.
   Threads. A program may be used by all threads at once, a stream by one at a time; different streams never meet.
            Nothing here is global but the text of each thread's last error.
   Memory.  Only create, restore and batch ask the system for memory; push, run, get and snapshot never do.
   Bits.    Outputs and snapshots have the same bits as in Python, for every processor the library is built for, also
            in threads that were set to flush denormals or to round otherwise (-ffast-math). */

#ifndef PS_PENSTOCK_H
#define PS_PENSTOCK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Version of these functions. */
#define PS_ABI_VERSION @ABI@
/* The most symbols that a stream can have. */
#define PS_MOST_SYMBOLS @MOST@

typedef int32_t ps_status;
enum {
@STATUS@
};

typedef struct ps_program ps_program;
typedef struct ps_stream ps_stream;

/* ---- errors ---- */

/* What this thread's last error was, "" before the first. Owned by the library, overwritten by the next error. */
const char *ps_error_text(void);
/* The name of a code. */
const char *ps_status_text(ps_status status);
/* The version the library was built with. */
int32_t ps_abi_version(void);

/* ---- the program ---- */

/* Puts the library's program into *program. `abi`: PS_ABI_VERSION.
   PS_OTHER_ABI for another version, PS_OTHER_CPU where the processor lacks what the library was built for. */
ps_status ps_program_open(int32_t abi, const ps_program **program);
/* Ends the use of a program; streams must have been destroyed. NULL is allowed. */
void ps_program_close(const ps_program *program);

/* "float32" or "float64", and the bytes of a value: 4 or 8. */
const char *ps_program_dtype(const ps_program *program);
int32_t ps_program_itemsize(const ps_program *program);
/* Digests (32 hexadecimal digits): of the program as Python's program.digest, and of the layout of its state; a
   snapshot fits if it has the same layout. */
const char *ps_program_digest(const ps_program *program);
const char *ps_program_layout(const ps_program *program);
/* How many inputs and outputs there are, and their names in order; handles count inputs first, then outputs:
   input i has handle i, output i has handle ps_program_inputs(program) + i. */
int32_t ps_program_inputs(const ps_program *program);
int32_t ps_program_outputs(const ps_program *program);
const char *ps_program_input(const ps_program *program, int32_t number);
const char *ps_program_output(const ps_program *program, int32_t number);
/* Rows before an output's value no longer depends on what was before the first; the largest of all outputs. */
int64_t ps_program_lookback(const ps_program *program, int32_t number);
int64_t ps_program_warmup(const ps_program *program);

/* ---- a stream, row by row ---- */

/* Puts a new stream with empty state into *stream, to be destroyed by the caller.
   symbols: 1 to PS_MOST_SYMBOLS; first: the ordinal of its first row, 0 unless the history began earlier. */
ps_status ps_stream_create(const ps_program *program, int64_t symbols, int64_t first, ps_stream **stream);
/* Gives the stream's memory back, and all pointers into it. NULL is allowed. */
void ps_stream_destroy(ps_stream *stream);
/* How many symbols it has, and the ordinal of its next row. */
int64_t ps_stream_symbols(const ps_stream *stream);
int64_t ps_stream_ordinal(const ps_stream *stream);
/* The handle of an input or output by name, at least 0; PS_UNKNOWN_NAME if there is none. */
int32_t ps_stream_handle(const ps_stream *stream, const char *name);
/* Gives one input's next row. values: one value per symbol, copied; a second push before run replaces the first. */
ps_status ps_stream_push(ps_stream *stream, int32_t handle, const void *values);
/* Computes the row that was pushed. PS_NOT_READY if an input has not been pushed since the last run. */
ps_status ps_stream_run(ps_stream *stream);
/* An output's last row: one value per symbol, owned by the stream, valid until its next run or batch.
   NULL if there is none yet, or no such output. */
const void *ps_stream_get(const ps_stream *stream, int32_t handle);

/* ---- many rows ---- */

/* Computes rows from where the stream is: the same bits as row by row.
   inputs: per input an array (rows, symbols), row after row; outputs: the same per output, to be written, and apart
   from the inputs and each other. rows: 0 or more. */
ps_status ps_stream_batch(ps_stream *stream, const void *const *inputs, void *const *outputs, int64_t rows);
/* The same with a state of its own, which is empty before and forgotten afterwards. */
ps_status ps_batch_run(const ps_program *program, const void *const *inputs, void *const *outputs, int64_t rows,
                       int64_t symbols, int64_t first);

/* ---- the state as bytes ---- */

/* Writes a snapshot and gives its size in bytes. data NULL and size 0: gives the size that is needed.
   What was pushed but not run is not in it. Python's program.stream(state=...) takes it. */
int64_t ps_stream_snapshot(const ps_stream *stream, void *data, size_t size);
/* Puts a stream that goes on from a snapshot into *stream, to be destroyed by the caller. The snapshot may be Python's
   of the same factors; its symbols keep their order and, in later snapshots, their names.
   PS_BAD_SNAPSHOT for other bytes, cut or changed; PS_OTHER_PROGRAM for another state, both sides named. */
ps_status ps_stream_restore(const ps_program *program, const void *data, size_t size, ps_stream **stream);

#ifdef __cplusplus
}
#endif

#endif
"""


def header(prefix: str = "ps") -> str:
    """The header's text, its names beginning with `prefix`."""
    last = len(STATUS) - 1
    codes = [
        f"    PS_{name} = {code}{',' if i < last else ''} /* {about} */"
        for i, (name, (code, about)) in enumerate(STATUS.items())
    ]
    text = _TEXT.replace("@ABI@", str(ABI)).replace("@MOST@", str(MOST)).replace("@STATUS@", "\n".join(codes))
    return re.sub(r"\bPS_", f"{prefix.upper()}_", re.sub(r"\bps_", f"{prefix}_", text))
