// Owns: a listener for NVTX ranges, as a profiler would load it (NVTX_INJECTION64_PATH): writes a line for each range that begins, its
// depth and its name, into the file that RANGES names. Never part of a program.
#include <stdio.h>
#include <stdlib.h>

#include <nvtx3/nvToolsExt.h>

static FILE *out;
static int depth;

static int NVTX_API begin(const char *name)
{
    fprintf(out, "%d %s\n", depth, name);
    return depth++;
}

static int NVTX_API end(void)
{
    if (depth == 0) {
        fprintf(out, "a range ended that had not begun\n");
        return -1;
    }
    return --depth;
}

static void close_file(void)
{
    fprintf(out, "%d ranges open\n", depth);
    fclose(out);
}

int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get_table);

int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get_table)
{
    const NvtxExportTableCallbacks *callbacks = get_table(NVTX_ETID_CALLBACKS);
    NvtxFunctionTable table = NULL;
    unsigned int size = 0;
    const char *path = getenv("RANGES");
    if (callbacks == NULL || !callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE, &table, &size) ||
        size <= NVTX_CBID_CORE_RangePop || path == NULL || (out = fopen(path, "w")) == NULL) {
        return 0;
    }
    *table[NVTX_CBID_CORE_RangePushA] = (NvtxFunctionPointer)begin;
    *table[NVTX_CBID_CORE_RangePop] = (NvtxFunctionPointer)end;
    atexit(close_file);
    return 1;
}
