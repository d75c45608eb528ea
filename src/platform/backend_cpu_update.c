// Owns: the optimizer's update on the CPU, and the clipping of gradients in front of it. The update is one pass over
// parameters, moments and gradients; never a learning-rate policy.
#include "backend_cpu_impl.h"

#include <math.h>

#include "cpa/platform/math_inl.h"

cpa_status cpa_cpu_adam(cpa_backend *be, cpa_mat p, cpa_mat m, cpa_mat v, cpa_mat g, double lr, double wd, double bias1,
                        double bias2)
{
    (void)be;
    // The scalars as torch.optim.Adam forms them: in double, rounded once.
    const cpa_real step = (cpa_real)(lr / bias1), root2 = (cpa_real)sqrt(bias2), decay = (cpa_real)wd;
#pragma omp parallel for schedule(static) if (cpa_parallel(p))
    for (int64_t i = 0; i < cpa_pieces(p); i++) {
        cpa_piece at = cpa_piece_at(p, i);
        cpa_real *pp = cpa_reals(p.data) + at.col, *pm = cpa_reals(m.data) + at.col, *pv = cpa_reals(v.data) + at.col;
        const cpa_real *pg = cpa_reals(g.data) + at.col;
#pragma omp simd
        for (int j = 0; j < at.n; j++) {
            cpa_adam(&pp[j], &pm[j], &pv[j], pg[j], step, root2, decay);
        }
    }
    return CPA_OK;
}

cpa_status cpa_cpu_clip(cpa_backend *be, cpa_dev_f64 *norm, cpa_mat a, double max_norm)
{
    cpa_status st = cpa_cpu_square_sum_scale(be, norm, a, 1);
    if (st != CPA_OK) {
        return st;
    }
    const double length = sqrt(cpa_f64s(norm)[0]), coef = max_norm / (length + 1e-6);
    cpa_f64s(norm)[0] = length;
    return coef >= 1 ? CPA_OK : cpa_cpu_axpby(be, a, (cpa_real)coef, a, 0); // NaN clips too, and so stays to be seen
}
