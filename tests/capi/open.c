/* open   what opening the program says */

#include <stdio.h>

#include "penstock.h"

int main(void) {
    const ps_program *program = NULL;
    ps_status status = ps_program_open(PS_ABI_VERSION, &program);
    printf("%s\n%s\n", ps_status_text(status), ps_error_text());
    return 0;
}
