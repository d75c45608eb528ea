// Owns: what the files that rewrite an AnnData file share. Never included outside src/data/convert*.c.
#ifndef CPA_DATA_CONVERT_IMPL_H
#define CPA_DATA_CONVERT_IMPL_H

#include "cpa/data/h5ad_write.h"
#include "h5ad_impl.h"

typedef struct cpa_conversion {
    cpa_part *in;
    cpa_h5 *out;
    int gzip;
} cpa_conversion;

/** Rewrites X (layer NULL; raw/X where that is in use) or a layer at `path`. */
cpa_status cpa_convert_matrix(const cpa_conversion *c, const char *layer, const char *path);

/** Writes the frame at `from` in today's encoding to the frame `to`. */
cpa_status cpa_convert_frame(const cpa_conversion *c, const char *from, const char *to);

#endif
