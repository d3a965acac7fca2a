// The two walks of automatic differentiation and the rules they apply, with their fallbacks. For
// src/transforms; users call autograd.h.
//
// Rules are compositions of public functions, so what the walks build is differentiable, batchable
// and traceable like anything else. An empty Array stands for zero throughout. Nothing is
// evaluated.
#pragma once

#include "transforms/traced_graph.h"

namespace mica::transforms {

// Reverse mode: cotangents of the sources, given those of the outputs. Sources that no cotangent
// reaches get an empty Array. Must run while the trace of the sources is open.
Arrays pull_back(std::span<const Array> outputs, std::span<const Array> cotangents,
                 std::span<const Array> sources);

// Forward mode: tangents of the outputs, given those of the sources; an empty tangent means zero.
Arrays push_forward(std::span<const Array> outputs, std::span<const Array> sources,
                    std::span<const Array> tangents);

// The op's own rule, else that of its lowering; Unsupported if it has neither. `app.outputs` are
// set.
Arrays apply_vjp(const Op& op, const Application& app, std::span<const Array> cotangents,
                 const std::vector<bool>& wanted);
// The op's own rule, else a double vjp, else the rule of its lowering.
Arrays apply_jvp(const Op& op, const Application& app, std::span<const Array> tangents);

}  // namespace mica::transforms
