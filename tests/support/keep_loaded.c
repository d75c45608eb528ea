// Owns: plugins that are unloaded at the end, such as those of the MPI library, staying where they are: the leak sanitizer, which looks
// after that, could not name them any more. Part of every program of the build with sanitizers. Must never do anything else.
#include <dlfcn.h>

int dlclose(void *handle)
{
    (void)handle;
    return 0;
}
