// plusplus   the header serves C++ too

#include <cstdio>
#include <vector>

#include "penstock.h"

int main() {
    const ps_program *program = nullptr;
    if (ps_program_open(PS_ABI_VERSION, &program) != PS_OK) return 1;
    ps_stream *stream = nullptr;
    if (ps_stream_create(program, 3, 0, &stream) != PS_OK) return 1;
    std::vector<double> row{1, 2, 3};
    for (int i = 0; i < ps_program_inputs(program); i++)
        if (ps_stream_push(stream, i, row.data()) != PS_OK) return 1;
    if (ps_stream_run(stream) != PS_OK) return 1;
    auto made = static_cast<const double *>(ps_stream_get(stream, ps_stream_handle(stream, "rank")));
    for (int i = 0; i < 3; i++) std::printf("%g\n", made[i]);
    ps_stream_destroy(stream);
    ps_program_close(program);
    return 0;
}
