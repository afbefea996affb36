/* refusals SNAPSHOT FOREIGN KIND FORGED…   every call that cannot be meant, and what is said about it, one line each
   FOREIGN: a snapshot of another program, KIND: of the same in the other dtype, FORGED: with lies in the header. */

#include "common.h"

static const ps_program *program;

static void said(int64_t status) {
    printf("%s %s\n", ps_status_text((ps_status)status), ps_error_text());
}

static ps_status restored(const void *data, size_t size) {
    ps_stream *stream = NULL;
    ps_status status = ps_stream_restore(program, data, size, &stream);
    CHECK(status == PS_OK || stream == NULL);
    ps_stream_destroy(stream);
    return status;
}

int main(int count, char **words) {
    CHECK(count > 4);
    ps_stream *stream = NULL;
    double row[3] = {1, 2, 3};
    CHECK(strcmp(ps_error_text(), "") == 0);
    CHECK(ps_abi_version() == PS_ABI_VERSION);

    printf("# program\n");
    said(ps_program_open(PS_ABI_VERSION, NULL));
    said(ps_program_open(PS_ABI_VERSION + 1, &program));
    CHECK(program == NULL);
    CHECK(ps_program_open(PS_ABI_VERSION, &program) == PS_OK);
    CHECK(ps_program_dtype(NULL) == NULL && ps_program_digest(NULL) == NULL && ps_program_layout(NULL) == NULL);
    said(ps_program_inputs(NULL));
    CHECK(ps_program_outputs(NULL) == PS_BAD_CALL && ps_program_itemsize(NULL) == PS_BAD_CALL);
    CHECK(ps_program_warmup(NULL) == PS_BAD_CALL && ps_program_lookback(NULL, 0) == PS_BAD_CALL);
    said(ps_program_warmup((const ps_program *)(const void *)row));
    CHECK(ps_program_input(program, 2) == NULL && ps_program_input(program, -1) == NULL);
    CHECK(ps_program_output(program, 2) == NULL);
    said(PS_BAD_CALL);
    said(ps_program_lookback(program, 9));

    printf("# create\n");
    said(ps_stream_create(NULL, 3, 0, &stream));
    said(ps_stream_create(program, 3, 0, NULL));
    said(ps_stream_create(program, 0, 0, &stream));
    said(ps_stream_create(program, -1, 0, &stream));
    said(ps_stream_create(program, PS_MOST_SYMBOLS + 1, 0, &stream));
    said(ps_stream_create(program, 3, -1, &stream));
    CHECK(stream == NULL);
    CHECK(ps_stream_create(program, 3, 0, &stream) == PS_OK);

    printf("# handle\n");
    CHECK(ps_stream_handle(stream, "close") == 0 && ps_stream_handle(stream, "volume") == 1);
    CHECK(ps_stream_handle(stream, "mean") == 2 && ps_stream_handle(stream, "rank") == 3);
    said(ps_stream_handle(stream, "Close"));
    said(ps_stream_handle(stream, ""));
    said(ps_stream_handle(stream, NULL));
    said(ps_stream_handle(NULL, "close"));
    said(ps_stream_handle((const ps_stream *)(const void *)row, "close"));

    printf("# push, run, get\n");
    said(ps_stream_push(stream, 2, row));
    said(ps_stream_push(stream, 4, row));
    said(ps_stream_push(stream, -1, row));
    said(ps_stream_push(stream, 0, NULL));
    said(ps_stream_push(NULL, 0, row));
    CHECK(ps_stream_get(stream, 2) == NULL);
    said(PS_NOT_READY);
    CHECK(ps_stream_get(stream, 0) == NULL);
    said(PS_BAD_CALL);
    CHECK(ps_stream_get(stream, 7) == NULL && ps_stream_get(NULL, 2) == NULL);
    CHECK(ps_stream_push(stream, 0, row) == PS_OK);
    said(ps_stream_run(stream));
    said(ps_stream_run(NULL));
    CHECK(ps_stream_ordinal(stream) == 0 && ps_stream_ordinal(NULL) == PS_BAD_CALL);
    CHECK(ps_stream_symbols(stream) == 3 && ps_stream_symbols(NULL) == PS_BAD_CALL);
    CHECK(ps_stream_push(stream, 1, row) == PS_OK && ps_stream_run(stream) == PS_OK);
    said(ps_stream_run(stream));
    CHECK(ps_stream_ordinal(stream) == 1 && ps_stream_get(stream, 3) != NULL);

    printf("# batch\n");
    const void *in[2] = {row, row}, *gap[2] = {row, NULL};
    double made[2][3];
    void *out[2] = {made[0], made[1]}, *hole[2] = {NULL, made[1]};
    said(ps_batch_run(NULL, in, out, 1, 3, 0));
    said(ps_batch_run(program, NULL, out, 1, 3, 0));
    said(ps_batch_run(program, in, NULL, 1, 3, 0));
    said(ps_batch_run(program, gap, out, 1, 3, 0));
    said(ps_batch_run(program, in, hole, 1, 3, 0));
    said(ps_batch_run(program, in, out, -1, 3, 0));
    said(ps_batch_run(program, in, out, INT64_MAX, 3, 0));
    said(ps_batch_run(program, in, out, 1, 0, 0));
    said(ps_batch_run(program, in, out, 1, 3, -5));
    said(ps_stream_batch(NULL, in, out, 1));
    said(ps_stream_batch(stream, gap, out, 1));
    said(ps_stream_batch(stream, in, out, -1));
    CHECK(ps_stream_batch(stream, in, out, 0) == PS_OK && ps_batch_run(program, in, out, 0, 3, 0) == PS_OK);
    CHECK(ps_stream_ordinal(stream) == 1);

    printf("# snapshot\n");
    int64_t size = ps_stream_snapshot(stream, NULL, 0);
    char *bytes = malloc((size_t)size);
    said(ps_stream_snapshot(NULL, bytes, (size_t)size));
    said(ps_stream_snapshot(stream, NULL, 8));
    said(ps_stream_snapshot(stream, bytes, (size_t)size - 1));
    CHECK(ps_stream_snapshot(stream, bytes, (size_t)size) == size);

    printf("# restore\n");
    CHECK(restored(bytes, (size_t)size) == PS_OK);
    said(restored(NULL, 0));
    said(ps_stream_restore(NULL, bytes, (size_t)size, &stream));
    said(ps_stream_restore(program, bytes, (size_t)size, NULL));
    said(restored("", 0));
    said(restored("PK\003\004 something else altogether", 31));
    said(restored(bytes, 100));
    said(restored(bytes, (size_t)size - 1));
    bytes[8] = 1;
    said(restored(bytes, (size_t)size));
    bytes[8] = 3;
    bytes[300] ^= 1;
    said(restored(bytes, (size_t)size));
    bytes[300] ^= 1;
    size_t theirs;
    char *other = read_file(words[2], &theirs);
    said(restored(other, theirs));
    for (int i = 3; i < count; i++) {
        other = read_file(words[i], &theirs);
        said(restored(other, theirs));
    }

    /* Every cut and every changed bit, of a snapshot that ends where memory does. */
    char *good = read_file(words[1], &theirs);
    CHECK(restored(good, theirs) == PS_OK);
    for (size_t cut = 0; cut < theirs; cut += cut < 400 ? 1 : 97) {
        char *less = guarded(cut);
        memcpy(less, good, cut);
        CHECK(restored(less, cut) == PS_BAD_SNAPSHOT);
    }
    for (size_t bit = 0; bit < theirs * 8; bit += 1 + bit / 4096) {
        good[bit / 8] = (char)(good[bit / 8] ^ (1 << bit % 8));
        CHECK(restored(good, theirs) == PS_BAD_SNAPSHOT);
        good[bit / 8] = (char)(good[bit / 8] ^ (1 << bit % 8));
    }
    CHECK(restored(good, theirs) == PS_OK);

    /* After all of that the stream is as it was. */
    char *after = malloc((size_t)size);
    CHECK(ps_stream_snapshot(stream, after, (size_t)size) == size && memcmp(bytes, after, (size_t)size) == 0);
    printf("# codes\n");
    for (ps_status status = 0; status >= PS_OTHER_CPU - 1; status--) printf("%s\n", ps_status_text(status));
    ps_stream_destroy(NULL);
    ps_stream_destroy(stream);
    ps_program_close(program);
    ps_program_close(NULL);
    free(bytes);
    free(after);
    return 0;
}
