// Owns: on_device COMMAND ...: runs a command where the cuda backend has a device; exits 77, saying why, where it has none.
// Must never hide another failure of the backend.
#include <stdio.h>
#include <unistd.h>

#include "cpa/platform/backend.h"

int main(int argc, char **argv)
{
    cpa_backend *be;
    cpa_status st = cpa_backend_create("cuda", &be);
    if (st == CPA_CONFIG) {
        fprintf(stderr, "skipped: %s\n", cpa_message());
        return 77;
    }
    if (st == CPA_OK) {
        st = cpa_backend_destroy(&be);
    }
    if (st != CPA_OK || argc < 2) {
        fprintf(stderr, "on_device: error: %s\n", st != CPA_OK ? cpa_message() : "no command");
        return st != CPA_OK ? (int)st : CPA_USAGE;
    }
    execv(argv[1], argv + 1);
    perror(argv[1]);
    return CPA_NO_INPUT;
}
