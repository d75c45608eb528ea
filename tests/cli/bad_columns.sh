#!/bin/bash
# Owns: that cells whose metadata cannot be trained on are refused: by `train`, alone and on 3 ranks, and by `check`.
# Never trains a model to the end.
set -u
. "$CPA_TESTS/support/refuse.sh"
make_bad_files

bad 65 "0 cells" no_cells.h5ad
bad 65 "'condition'|--perturbation-key" no_condition.h5ad
bad 65 "'condition'" no_condition.h5ad --perturbation-key condition
bad 65 "condition" listed_only.h5ad
bad 65 "no column 'dose'" no_dose.h5ad --dosage-key dose
bad 65 "no column 'split'" no_split.h5ad --split-key split
bad 65 "no column 'cell_type'" no_cell_type.h5ad --categorical-covariate-keys cell_type
bad 65 "no column 'donor'" good.h5ad --batch-key donor
bad 65 "2 of 48 cells|obs/condition|row 7" missing_condition.h5ad
bad 65 "1 of 48 cells|obs/split|row 7" missing_split.h5ad
bad 65 "obs/dose|row 7" dose_nan_number.h5ad
bad 65 "cell_type|row 7|code 2" code_high.h5ad
bad 65 "condition|row 7|code -3" code_low.h5ad
bad 65 "cell_type|47" short_column.h5ad
bad 65 "cell_type|1000000000000 elements|damaged" claims.h5ad
bad 65 "cell_type|UTF-8" not_utf8.h5ad
bad 65 "cell_type|NUL character after 'T'" nul.h5ad
bad 65 "cell_type|code 1|0 categories" no_categories.h5ad
bad 65 "cell_type|categories cannot have categories" categories_of_categories.h5ad
bad 65 "cell_type is a categorical of version 0.9.0" new_column.h5ad
bad 65 "cell_type|awkward-array" unknown_column.h5ad --categorical-covariate-keys cell_type
bad 65 "control|--control-group" no_control.h5ad
bad 65 "control 'crtl'|'ctrl'" good.h5ad --control-group crtl
bad 65 "'2uM'|'B'|row 2" dose_unparsable.h5ad
bad 65 "'-2'|'B'" dose_negative.h5ad
bad 65 "'nan'|'B'" dose_nan.h5ad
bad 65 "'inf'|'B'" dose_infinite.h5ad
bad 65 "'A+B'|1 doses for 2 components" dose_too_few.h5ad
bad 65 "'A'|2 doses for 1 components" dose_too_many.h5ad
bad 65 "'A+A'|twice" twice.h5ad
bad 65 "'A+'|empty component" empty_component.h5ad
bad 65 "'A+B'|2 components|max_comb_len" good.h5ad --max-comb-len 1
bad 65 "'train'|obs/split|--train-split" no_train.h5ad
bad 65 "'holdout'|--test-split" good.h5ad --test-split holdout
bad 78 "'train'|two splits" good.h5ad --valid-split train
bad 78 "'cell_type'|twice" good.h5ad --categorical-covariate-keys cell_type,cell_type
bad 65 "'markers'|--deg-uns-key" good.h5ad --deg-uns-key markers

# Several faults at once: all are named.
bad 65 "'crtl'|'A+B'|max_comb_len|'donor'" good.h5ad --control-group crtl --max-comb-len 1 --batch-key donor
finish
