// Owns: the hyper-parameters of the model (upstream's CPA(...) arguments) and of its adversaries.
// Never holds what only training or a run needs.
#ifndef CPA_MODEL_CONFIG_H
#define CPA_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

typedef struct cpa_model_config {
    char *recon_loss;                   // "nb", "zinb" or "gauss"
    char *doser_type;                   // "logsigm", "sigm", "linear" or "mlp"
    int n_hidden_doser, n_layers_doser; // of "mlp"
    int n_latent, n_hidden_encoder, n_layers_encoder, n_hidden_decoder, n_layers_decoder;
    bool use_batch_norm_encoder, use_layer_norm_encoder, use_batch_norm_decoder, use_layer_norm_decoder;
    double dropout_rate_encoder, dropout_rate_decoder; // the latter for gauss alone, as upstream, or
    bool nb_decoder_dropout;                           // for counts too
    bool control_zero;                                 // the control adds nothing to the latent
    bool variational;
    bool freeze_pert_projection; // of external embeddings, as upstream
    int n_hidden_adv, n_layers_adv;
    bool use_batch_norm_adv, use_layer_norm_adv;
    double dropout_rate_adv;
    int64_t seed;
} cpa_model_config;

#endif
