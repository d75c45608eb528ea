// Owns: a compute backend by name, and the checked entry points of its operations (ops.def). Knows nothing of models.
#ifndef CPA_PLATFORM_BACKEND_H
#define CPA_PLATFORM_BACKEND_H

#include <stdbool.h>
#include <stddef.h>

#include "cpa/base/mem.h"
#include "cpa/platform/tensor.h"

typedef struct cpa_backend cpa_backend;

/** Creates a backend: "cpu" (OpenMP and oneDNN, or BLAS in the double build), "check" (the same arithmetic behind device
 *  manners: memory is unreadable outside operations, NaN on alloc, red zones), "cuda" in builds that have it. USAGE for
 *  an unknown name, listing those there are; CONFIG when there is no GPU for "cuda". */
cpa_status cpa_backend_create(const char *name, cpa_backend **out);

/** A backend that computes nothing and takes no memory, but counts (cpa_memory_bytes) what "cpu", "check" (as cpu) or "cuda" (on its
 *  device, also in builds that do not have it) would take for the same calls: for planning. What it gives out cannot be read or
 *  written. */
cpa_status cpa_backend_create_counting(const char *of, cpa_backend **out);

/** Most scratch that operations of the counting backend would have needed so far, in bytes; counted, too. */
size_t cpa_backend_counted_scratch(const cpa_backend *be);

/** Destroys it and sets *be to NULL. INTERNAL when memory was not released or, with "check", was written out of bounds. */
cpa_status cpa_backend_destroy(cpa_backend **be);

// How exactly products are computed: in cpa_real; with factors rounded to tf32 (10 bits) on their way into a GPU's tensor cores; or also with
// what is as wide as the genes stored in bfloat16 (7 bits). Sums, losses, norms and parameters are cpa_real in all.
typedef enum cpa_precision { CPA_FP32, CPA_TF32, CPA_BF16 } cpa_precision;

/** The precision of a name: fp32, tf32 or bf16. USAGE for another one. */
cpa_status cpa_precision_of(const char *name, cpa_precision *out);

/** Says how products are computed from here on. CONFIG where this backend, or this build, cannot. */
cpa_status cpa_backend_set_precision(cpa_backend *be, cpa_precision precision);

/** How they are. */
cpa_precision cpa_backend_precision(const cpa_backend *be);

/** Its name. */
const char *cpa_backend_name(const cpa_backend *be);

/** What its memory counts as (cpa_memory_bytes). */
cpa_memory cpa_backend_memory(const cpa_backend *be);

/** Where the host may read and write an array of the backend between operations; NULL where it may not. */
cpa_real *cpa_backend_host(const cpa_backend *be, const cpa_dev_real *array);

/** Bytes of the device's memory that are free; SIZE_MAX where nobody counts. */
size_t cpa_backend_free_bytes(cpa_backend *be);

// Operations that were recorded together.
typedef struct cpa_recording cpa_recording;

/** Whether operations can be recorded now, to be repeated by one call that takes the host next to nothing. */
bool cpa_backend_can_record(const cpa_backend *be);

/** Begins to record: operations from here on are noted and not run. They must have been run once before with the same shapes, so that none takes
 *  memory, and neither upload, download, alloc nor release may be among them. */
cpa_status cpa_backend_record(cpa_backend *be);

/** Ends it; to be called, too, when an operation failed that was to be recorded. */
cpa_status cpa_backend_recorded(cpa_backend *be, cpa_recording **out);

/** Whether it can still be repeated: scratch that it was recorded with may since have given way to more. */
bool cpa_backend_holds(const cpa_backend *be, const cpa_recording *r);

/** Runs what was recorded, which must hold: the same operations with the same arguments, but cpa_numbers and the contents of arrays as they are now. */
cpa_status cpa_backend_replay(cpa_backend *be, const cpa_recording *r);

/** Frees it and sets *r to NULL; NULL-safe. */
void cpa_backend_forget(cpa_backend *be, cpa_recording **r);

/** What decides its bits beside the build: the instructions that the library of products uses, or the device. The backend's. */
const char *cpa_backend_isa(const cpa_backend *be);

// How a dose becomes the weight of a perturbation's embedding (operation doser).
typedef enum cpa_doser { CPA_DOSER_LOGSIGM, CPA_DOSER_SIGM, CPA_DOSER_LINEAR } cpa_doser;

// The operations: cpa_op_gemm(be, ...), ... Shapes are validated (INTERNAL, naming operation and shapes), then dispatched.
#define CPA_OP(name, params, args) cpa_status cpa_op_##name params;
#include "cpa/platform/ops.def"
#undef CPA_OP

#endif
