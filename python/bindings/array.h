// The files that make up the array class. Slots of hot paths are plain C functions, without
// nanobind's argument matching.
#pragma once

#include <string>

#include "common.h"

namespace mica::python {

using ArrayClass = nb::class_<Array>;

// Called with the finished class.
void add_memory_methods(ArrayClass& type);      // array_memory.cc: buffers, DLPack, pickling
void add_at(nb::module_& m, ArrayClass& type);  // indexing.cc

// As MLX prints: "array([1, 2, 3], dtype=int32)"; more than 6 elements along an axis are elided.
std::string array_text(Array array);

// Type slots, ended by {0, nullptr} when concatenated.
std::vector<PyType_Slot> operator_slots();
std::vector<PyType_Slot> indexing_slots();
std::vector<PyType_Slot> memory_slots();

}  // namespace mica::python
