/* through DATA SNAPSHOT LATER   from a snapshot to the end of the data, and a snapshot of that */

#include "common.h"

int main(int count, char **words) {
    CHECK(count == 4);
    Data data = read_data(words[1]);
    ps_stream *stream = NULL;
    size_t size;
    char *bytes = read_file(words[2], &size);
    CHECK(ps_stream_restore(data.program, bytes, size, &stream) == PS_OK);
    ticks(&data, stream, ps_stream_ordinal(stream), data.rows, new_outputs(&data, data.rows));
    CHECK(ps_stream_snapshot(stream, bytes, size) == (int64_t)size);
    write_file(words[3], bytes, size);
    ps_stream_destroy(stream);
    return 0;
}
