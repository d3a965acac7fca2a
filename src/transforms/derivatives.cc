#include "transforms/derivatives.h"

#include <algorithm>

#include "ops/create.h"
#include "transforms/cotangent_sum.h"
#include "transforms/recompute.h"

namespace mica::transforms {

namespace {

void check_like(const char* rule, const Op& op, const Array& given, const Array& expected) {
  if (given.shape() == expected.shape() && given.dtype() == expected.dtype()) return;
  throw_value("[{}] the rule of {} gave {} of shape {} where {} of shape {} belongs", rule, op.name,
              given.dtype(), given.shape(), expected.dtype(), expected.shape());
}

// The inputs of `app` as fresh arrays of `scope` where `wanted`, themselves elsewhere.
Arrays track_wanted(TraceScope& scope, const Application& app, const std::vector<bool>& wanted,
                    Arrays& sources) {
  Arrays inputs(app.inputs.begin(), app.inputs.end());
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!wanted[i]) continue;
    inputs[i] = scope.track(inputs[i]);
    sources.push_back(inputs[i]);
  }
  return inputs;
}

Arrays lowered_vjp(const Op& op, const Application& app, std::span<const Array> cotangents,
                   const std::vector<bool>& wanted) {
  TraceScope scope;
  Arrays sources;
  Arrays inputs = track_wanted(scope, app, wanted, sources);
  Arrays outputs = op.lower({inputs, {}, app.params, app.stream});
  Arrays found = pull_back(outputs, cotangents, sources);
  Arrays result(inputs.size());
  size_t next = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (wanted[i]) result[i] = found[next++];
  }
  return result;
}

Arrays lowered_jvp(const Op& op, const Application& app, std::span<const Array> tangents) {
  TraceScope scope;
  std::vector<bool> wanted;
  Arrays given;
  for (const Array& tangent : tangents) {
    wanted.push_back(tangent.defined());
    if (tangent.defined()) given.push_back(tangent);
  }
  Arrays sources;
  Arrays inputs = track_wanted(scope, app, wanted, sources);
  return push_forward(op.lower({inputs, {}, app.params, app.stream}), sources, given);
}

// The vjp is linear in its cotangents u: the vjp of u -> vjp(u), applied to the tangents, is the
// jvp. It may be taken at any u; ones, since rules that split their cotangents by sign have a kink
// at zero.
Arrays double_vjp(const Op& op, const Application& app, std::span<const Array> tangents) {
  TraceScope scope;
  Arrays cotangents, sources;
  std::vector<size_t> places;
  for (size_t i = 0; i < app.outputs.size(); ++i) {
    Array cotangent = ones_like(app.outputs[i], app.stream);
    if (is_floating(cotangent.dtype())) {
      cotangent = scope.track(cotangent);
      sources.push_back(cotangent);
      places.push_back(i);
    }
    cotangents.push_back(cotangent);
  }
  std::vector<bool> wanted;
  for (const Array& tangent : tangents) wanted.push_back(tangent.defined());
  Arrays pulled = op.vjp(app, cotangents, wanted);
  Arrays outputs, seeds;
  for (size_t i = 0; i < pulled.size(); ++i) {
    if (!wanted[i] || !pulled[i].defined()) continue;
    outputs.push_back(pulled[i]);
    seeds.push_back(tangents[i]);
  }
  Arrays found = pull_back(outputs, seeds, sources);
  Arrays result(app.outputs.size());
  for (size_t i = 0; i < places.size(); ++i) result[places[i]] = found[i];
  return result;
}

// What pulling a node needs, kept from node to node.
struct PullTables {
  Arrays outputs, given, read;
  std::vector<bool> wanted;

  void clear() {
    outputs.clear();
    given.clear();
    read.clear();
    wanted.clear();
  }
};

// Pulls the cotangents of one node back to its inputs.
void pull_node(const TracedGraph& graph, size_t k, Recomputation& recomputation, Arrays& cotangents,
               PullTables& tables) {
  Node* node = graph.nodes()[k];
  size_t first = graph.first_value(k);
  bool reached = false;
  for (uint32_t i = 0; i < node->output_count; ++i) reached |= cotangents[first + i].defined();
  if (!reached) return;

  auto& [outputs, given, read, wanted] = tables;
  for (uint32_t i = 0; i < node->output_count; ++i) {
    outputs.push_back(Array::share(&node->slots[i]));
    Array& cotangent = cotangents[first + i];
    given.push_back(cotangent.defined() ? std::move(cotangent)
                                        : zeros_like(outputs[i], node->stream));
    cotangent = Array();
  }
  std::span<const Array> inputs = node->input_span();
  for (const Array& input : inputs) wanted.push_back(graph.number(input) >= 0);
  std::span<const Array> primals = inputs;
  if (recomputation.any() && node->op->elementwise) {
    for (const Array& input : inputs) read.push_back(recomputation.again(input, given[0]));
    outputs[0] = recomputation.again(outputs[0], given[0]);
    primals = read;
  }
  Arrays found =
      apply_vjp(*node->op, {primals, outputs, node->params, node->stream}, given, wanted);
  MICA_ASSERT(found.size() == inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!wanted[i] || !found[i].defined()) continue;
    check_like("vjp", *node->op, found[i], inputs[i]);
    accumulate(cotangents[static_cast<size_t>(graph.number(inputs[i]))], std::move(found[i]),
               node->stream);
  }
  tables.clear();
}

void push_node(const TracedGraph& graph, size_t k, Arrays& tangents) {
  Node* node = graph.nodes()[k];
  Arrays given;
  bool any = false;
  for (const Array& input : node->input_span()) {
    int64_t number = graph.number(input);
    given.push_back(number >= 0 ? tangents[static_cast<size_t>(number)] : Array());
    any |= given.back().defined();
  }
  if (!any) return;
  Arrays outputs = Array::all_of(node);
  Arrays found =
      apply_jvp(*node->op, {node->input_span(), outputs, node->params, node->stream}, given);
  MICA_ASSERT(found.size() == outputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!found[i].defined() || !is_floating(outputs[i].dtype())) continue;
    check_like("jvp", *node->op, found[i], outputs[i]);
    tangents[graph.first_value(k) + i] = std::move(found[i]);
  }
}

}  // namespace

Arrays apply_vjp(const Op& op, const Application& app, std::span<const Array> cotangents,
                 const std::vector<bool>& wanted) {
  StreamScope on_its_stream(app.stream);
  if (op.vjp) return op.vjp(app, cotangents, wanted);
  if (op.lower) return lowered_vjp(op, app, cotangents, wanted);
  throw_unsupported("[vjp] {} has no derivative", op.name);
}

Arrays apply_jvp(const Op& op, const Application& app, std::span<const Array> tangents) {
  StreamScope on_its_stream(app.stream);
  if (op.jvp) return op.jvp(app, tangents);
  if (op.vjp) return double_vjp(op, app, tangents);
  if (op.lower) return lowered_jvp(op, app, tangents);
  throw_unsupported("[jvp] {} has no derivative", op.name);
}

Arrays pull_back(std::span<const Array> outputs, std::span<const Array> given,
                 std::span<const Array> sources) {
  TracedGraph graph(outputs, sources, Follow::Derivatives);
  Arrays cotangents(graph.values());
  for (size_t i = 0; i < outputs.size(); ++i) {
    int64_t number = graph.number(outputs[i]);
    if (number < 0) continue;
    accumulate(cotangents[static_cast<size_t>(number)], given[i], outputs[i].node()->stream);
  }
  Recomputation recomputation(graph, outputs);
  PullTables tables;
  for (size_t k = graph.nodes().size(); k-- > 0;)
    pull_node(graph, k, recomputation, cotangents, tables);
  cotangents.resize(sources.size());
  return cotangents;
}

Arrays push_forward(std::span<const Array> outputs, std::span<const Array> sources,
                    std::span<const Array> given) {
  TracedGraph graph(outputs, sources, Follow::Derivatives);
  Arrays tangents(graph.values());
  std::copy(given.begin(), given.end(), tangents.begin());
  for (size_t k = 0; k < graph.nodes().size(); ++k) push_node(graph, k, tangents);
  Arrays result;
  for (const Array& output : outputs) {
    int64_t number = graph.number(output);
    result.push_back(number >= 0 ? tangents[static_cast<size_t>(number)] : Array());
  }
  return result;
}

}  // namespace mica::transforms
