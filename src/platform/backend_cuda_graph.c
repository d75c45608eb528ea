// Owns: operations that are recorded as a CUDA graph and repeated by one launch. Never decides what may be.
#include "backend_cuda_impl.h"

struct cpa_recording {
    cudaGraphExec_t graph;
    long n_outgrown; // then
};

static cpa_status begin(cpa_backend *be)
{
    return cpa_cuda_judge(cudaStreamBeginCapture(cpa_cuda_stream(be), cudaStreamCaptureModeThreadLocal),
                          "the recording of operations");
}

static void forget(cpa_recording *r)
{
    if (r->graph != NULL) {
        cudaGraphExecDestroy(r->graph);
    }
    cpa_free(&r);
}

static cpa_status end(cpa_backend *be, cpa_recording **out)
{
    cpa_status st;
    cudaGraph_t graph = NULL;
    cpa_recording *r = NULL;
    ((cpa_cuda *)be)->dense_of.x.rows = 0; // what was recorded has not been run
    CPA_TRY(cpa_cuda_judge(cudaStreamEndCapture(cpa_cuda_stream(be), &graph), "the recording of operations"));
    CPA_TRY(cpa_alloc(1, sizeof *r, &r));
    CPA_TRY(cpa_cuda_judge(cudaGraphInstantiate(&r->graph, graph, 0), "the graph of operations"));
    r->n_outgrown = ((cpa_cuda *)be)->n_outgrown;
    *out = r;
    r = NULL;
cleanup:
    if (graph != NULL) {
        cudaGraphDestroy(graph);
    }
    if (r != NULL) {
        forget(r);
    }
    return st;
}

// Its operations know scratch by address.
static bool holds(const cpa_backend *be, const cpa_recording *r)
{
    return r->n_outgrown == ((const cpa_cuda *)be)->n_outgrown;
}

static cpa_status replay(cpa_backend *be, const cpa_recording *r)
{
    ((cpa_cuda *)be)->dense_of.x.rows = 0; // whatever cells it makes dense, nobody need know
    return cpa_cuda_judge(cudaGraphLaunch(r->graph, cpa_cuda_stream(be)), "operations that are repeated");
}

const cpa_recorder cpa_cuda_recorder = {begin, end, holds, replay, forget};
