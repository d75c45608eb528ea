// Owns: the hyper-parameters of the model (upstream's CPA(...) arguments) and of its adversaries.
// Never holds what only training or a run needs.
#ifndef CPA_MODEL_CONFIG_H
#define CPA_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

typedef struct cpa_model_config {
    char *recon_loss; // "nb"
    char *doser_type; // "logsigm"
    int n_latent, n_hidden_encoder, n_layers_encoder, n_hidden_decoder, n_layers_decoder;
    int n_hidden_adv, n_layers_adv;
    double dropout_rate_adv;
    int64_t seed;
} cpa_model_config;

#endif
