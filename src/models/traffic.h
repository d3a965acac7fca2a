// What passes of a model must move and compute at least: figures to put beside the machine's
// ceilings (base/ceilings.h).
#pragma once

#include <cstdint>

#include "base/ceilings.h"
#include "models/model.h"

namespace mica::models {

// Bytes that one step reads in which each of `sequences` gets a token after `context` positions:
// every matrix once as it is stored, one row of a table per token, the keys and values of all
// sequences. Of experts those that so many tokens pick, if each picks at random.
double decode_bytes(Model& model, int64_t sequences, int64_t context);

// Multiplications and additions of a prompt's matrix products and causal attention, when
// `passes` passes over parts of it make logits of their last positions. What follows the last
// layer's attention is for these positions only.
double prompt_operations(Model& model, int64_t tokens, int64_t passes);

// What most products are made of: 8-bit integers where they take activations rounded to them
// (ops/quantized.h), else bfloat16 or float32, as activations are.
Arithmetic arithmetic_of(Model& model);

}  // namespace mica::models
