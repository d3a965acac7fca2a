// One small operation whose inputs are there: what programs that evaluate after every operation
// do. It runs as the plan of a segment of one node would, but without the tables of a segment.
#pragma once

#include "core/graph.h"
#include "core/plan.h"

namespace mica {

// True if the array is what such an operation gives and has its value now. False, with nothing
// changed: its evaluation is a longer one, or the first of its structure on this thread. Throws
// what the operation threw. `key` is scratch; `evaluation` claims nothing before and after.
bool eval_single(const Array& root, PlanMemo& plans, KeyWords& key, Evaluation& evaluation);

}  // namespace mica
