// The attention family between its two files: attention.cc holds the operations' records and the
// public functions, attention_rules.cc their derivatives, batching and lowering.
#pragma once

#include <span>
#include <vector>

#include "ops/attention.h"
#include "ops/rules.h"

namespace mica::ops {

Arrays attention_vjp(const Application& app, Given cotangents, const std::vector<bool>& wanted);
Arrays attention_jvp(const Application& app, Given tangents);
Batched attention_vmap(const Application& app, std::span<const int> axes);
Arrays attention_lower(const Application& app);
Batched attention_vjp_vmap(const Application& app, std::span<const int> axes);
Arrays attention_vjp_lower(const Application& app);

std::vector<Sample> attention_samples();
std::vector<Sample> attention_vjp_samples();

}  // namespace mica::ops
