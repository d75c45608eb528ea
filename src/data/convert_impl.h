// Owns: what the files that rewrite an AnnData file share. Never included outside src/data/convert*.c.
#ifndef CPA_DATA_CONVERT_IMPL_H
#define CPA_DATA_CONVERT_IMPL_H

#include "cpa/data/h5ad_write.h"
#include "h5ad_impl.h"

typedef struct cpa_conversion {
    cpa_h5ad *all; // one file or several
    cpa_part *in;  // the first of them; of one file, it stays open
    cpa_h5 *out;
    int gzip;
} cpa_conversion;

/** Rewrites X (layer NULL; raw/X where that is in use) or a layer at `path`, the cells of all files one after another. */
cpa_status cpa_convert_matrix(const cpa_conversion *c, const char *layer, const char *path);

/** Writes several files as one. What they cannot say together is left out, which is said. */
cpa_status cpa_convert_files(const cpa_conversion *c);

/** Writes uns, the dictionaries of all files as one. Warns of keys under which a later file has another value. */
cpa_status cpa_convert_uns(const cpa_conversion *c);

/** Writes a column of obs that some of several files have, or of the selected genes of the first one, at `to`. Numbers in every file
 *  stay numbers; one that is missing is NaN or, among integers and booleans, masked. Texts stay texts where every file has them and no
 *  row lacks one. All else becomes categories. BAD_DATA: an integer that the type of the column would change. */
cpa_status cpa_convert_column(const cpa_conversion *c, const char *frame, const char *column, const char *to);

/** Writes the frame at `from` in today's encoding to the frame `to`. */
cpa_status cpa_convert_frame(const cpa_conversion *c, const char *from, const char *to);

#endif
