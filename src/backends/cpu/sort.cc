// Sorting and partitioning. Elements become unsigned keys of the same order (NaNs last), which are
// sorted by radix, or packed with their index; one long line is sorted in parts on several threads.
#include "ops/sort.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "backends/cpu/lines.h"
#include "backends/cpu/radix.h"
#include "base/thread_pool.h"

namespace mica::cpu {

namespace {

constexpr int64_t kRadix = 512;         // shorter lines are sorted by comparison
constexpr int64_t kParallel = 1 << 16;  // longer lines are sorted in parts

template <size_t bytes>
struct UnsignedOf;
template <>
struct UnsignedOf<1> {
  using type = uint8_t;
};
template <>
struct UnsignedOf<2> {
  using type = uint16_t;
};
template <>
struct UnsignedOf<4> {
  using type = uint32_t;
};
template <>
struct UnsignedOf<8> {
  using type = uint64_t;
};
template <class T>
using Key = typename UnsignedOf<sizeof(T)>::type;

template <class T>
constexpr bool kFloats = is_floating(dtype_of<T>);
template <class T>
constexpr Key<T> kSign = static_cast<Key<T>>(Key<T>{1} << (8 * sizeof(T) - 1));

// A key that orders as the values do.
template <class T>
Key<T> key_of(T value) {
  if constexpr (kFloats<T>) {
    Key<T> bits;
    std::memcpy(&bits, &value, sizeof(T));
    if (value != value) return static_cast<Key<T>>(~Key<T>{0});
    return static_cast<Key<T>>(bits & kSign<T> ? ~bits : bits | kSign<T>);
  } else if constexpr (std::is_signed_v<T>) {
    return static_cast<Key<T>>(static_cast<Key<T>>(value) ^ kSign<T>);
  } else {
    return static_cast<Key<T>>(value);
  }
}

template <class T>
T value_of(Key<T> key) {
  if constexpr (kFloats<T>) {
    Key<T> bits = static_cast<Key<T>>(key & kSign<T> ? key ^ kSign<T> : ~key);
    T value;
    std::memcpy(static_cast<void*>(&value), &bits, sizeof(T));
    return value;
  } else if constexpr (std::is_signed_v<T>) {
    return static_cast<T>(key ^ kSign<T>);
  } else {
    return static_cast<T>(key);
  }
}

// A key with the place it came from. Equal values must have equal keys here, so that their order
// stays.
struct WideEntry {
  uint64_t key;
  uint64_t index;
  friend bool operator<(const WideEntry& a, const WideEntry& b) {
    return a.key != b.key ? a.key < b.key : a.index < b.index;
  }
};
template <class T>
using Entry = std::conditional_t<sizeof(T) == 8, WideEntry, uint64_t>;

template <class T>
Entry<T> entry_of(T value, int64_t index) {
  if constexpr (kFloats<T>) {
    if (value == T(0.0f)) value = T(0.0f);  // one zero
  }
  uint64_t key = key_of(value);
  if constexpr (sizeof(T) == 8)
    return {key, static_cast<uint64_t>(index)};
  else
    return key << 32 | static_cast<uint64_t>(index);
}
inline uint64_t radix_key(uint64_t entry) { return entry >> 32; }
inline uint64_t radix_key(const WideEntry& entry) { return entry.key; }
inline uint32_t index_of(uint64_t entry) { return static_cast<uint32_t>(entry); }
inline uint32_t index_of(const WideEntry& entry) { return static_cast<uint32_t>(entry.index); }

template <class R, class K>
void sort_part(R* records, R* scratch, int64_t count, K&& key) {
  if (count < kRadix)
    std::sort(records, records + count);
  else
    radix_sort(records, scratch, count, key);
}

// Merges two sorted runs into `to`, one half of the result from the front, the other from the back.
template <class R>
void merge_runs(const R* begin, const R* middle, const R* end, R* to) {
  int64_t count = end - begin, half = count / 2;
  ThreadPool::shared().parallel_for(2, 1, [&](int64_t from, int64_t until) {
    if (from == 0) {
      const R *a = begin, *b = middle;
      for (int64_t i = 0; i < half; ++i)
        to[i] = b == end || (a != middle && !(*b < *a)) ? *a++ : *b++;
    }
    if (until == 2) {
      const R *a = middle, *b = end;
      for (int64_t i = count; i-- > half;)
        to[i] = a == begin || (b != middle && !(b[-1] < a[-1])) ? *--b : *--a;
    }
  });
}

// Sorts records of distinct or interchangeable values; the order does not depend on the parts.
template <class R, class K>
void sort_records(std::vector<R>& records, std::vector<R>& scratch, K&& key) {
  auto count = static_cast<int64_t>(records.size());
  scratch.resize(records.size());
  if (count < kParallel || ThreadPool::shared().threads() == 1) {
    return sort_part(records.data(), scratch.data(), count, key);
  }
  int64_t parts = 2;
  while (parts < 16 && parts < ThreadPool::shared().threads()) parts *= 2;
  auto at = [&](int64_t part) { return count * part / parts; };
  ThreadPool::shared().parallel_for(parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      sort_part(records.data() + at(p), scratch.data() + at(p), at(p + 1) - at(p), key);
    }
  });
  for (int64_t width = 1; width < parts; width *= 2) {
    ThreadPool::shared().parallel_for(parts / (2 * width), 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        int64_t low = at(2 * p * width), middle = at((2 * p + 1) * width),
                high = at((2 * p + 2) * width);
        merge_runs(&records[low], records.data() + middle, records.data() + high, &scratch[low]);
      }
    });
    std::swap(records, scratch);
  }
}

// Partitions entries so that the kth stands where sorting would put it: by the leading bits of the
// keys at once, then only among those that share the kth's.
template <class T>
void select_entry(std::vector<Entry<T>>& entries, std::vector<Entry<T>>& scratch, int64_t kth) {
  constexpr int kBits = sizeof(T) == 1 ? 8 : 11;
  constexpr int kShift = 8 * static_cast<int>(sizeof(T)) - kBits;
  auto bucket = [](const Entry<T>& entry) { return radix_key(entry) >> kShift; };
  auto begin = entries.begin(), end = entries.end();
  if (static_cast<int64_t>(entries.size()) >= 4 * kRadix) {
    scratch.resize(entries.size());
    std::vector<int64_t> place((1 << kBits) + 1, 0);
    for (const Entry<T>& entry : entries) ++place[bucket(entry) + 1];
    size_t chosen = 0;
    for (size_t i = 1; i < place.size(); ++i) {
      place[i] += place[i - 1];
      if (place[i] <= kth) chosen = i;
    }
    int64_t first = place[chosen], last = place[chosen + 1];
    for (const Entry<T>& entry : entries) scratch[place[bucket(entry)]++] = entry;
    std::swap(entries, scratch);
    begin = entries.begin() + first;
    end = entries.begin() + last;
  }
  std::nth_element(begin, entries.begin() + kth, end);
}

// Calls f(line walker, vectors of records …) for lines in parallel, unless one line is worth all
// threads.
template <class F>
void for_each_line(const View& a, const View& out, int axis, F&& f) {
  LineWalk lines(a, out, axis);
  int64_t grain = std::max<int64_t>(1, 4096 / std::max<int64_t>(lines.length(), 1));
  if (lines.length() >= kParallel && lines.count() < 2 * ThreadPool::shared().threads())
    grain = lines.count();
  ThreadPool::shared().parallel_for(lines.count(), grain,
                                    [&](int64_t begin, int64_t end) { f(lines, begin, end); });
}

template <class T>
void sort_lines(const View& a, const View& out, int axis) {
  for_each_line(a, out, axis, [&](const LineWalk& lines, int64_t begin, int64_t end) {
    std::vector<Key<T>> keys(static_cast<size_t>(lines.length())), scratch;
    for (int64_t l = begin; l < end; ++l) {
      auto [from, to] = lines.at<T, T>(l);
      for (int64_t i = 0; i < lines.length(); ++i) keys[i] = key_of(from[i * lines.step_in()]);
      sort_records(keys, scratch, [](Key<T> key) { return static_cast<uint64_t>(key); });
      for (int64_t i = 0; i < lines.length(); ++i) to[i * lines.step_out()] = value_of<T>(keys[i]);
    }
  });
}

// Places in the order of their values; with `kth` only so far that this one is right.
template <class T>
void order_lines(const View& a, const View& out, int axis, std::optional<int64_t> kth) {
  for_each_line(a, out, axis, [&](const LineWalk& lines, int64_t begin, int64_t end) {
    std::vector<Entry<T>> entries(static_cast<size_t>(lines.length())), scratch;
    for (int64_t l = begin; l < end; ++l) {
      auto [from, to] = lines.at<T, uint32_t>(l);
      for (int64_t i = 0; i < lines.length(); ++i)
        entries[i] = entry_of(from[i * lines.step_in()], i);
      if (kth)
        select_entry<T>(entries, scratch, *kth);
      else
        sort_records(entries, scratch, [](const Entry<T>& entry) { return radix_key(entry); });
      for (int64_t i = 0; i < lines.length(); ++i) to[i * lines.step_out()] = index_of(entries[i]);
    }
  });
}

template <class F>
void with_type(const KernelCall& call, F&& f) {
  dispatch(call.inputs[0].dtype, [&](auto tag) { f(tag, call.inputs[0], call.outputs[0]); });
}

void sort(const KernelCall& call) {
  with_type(call, [&](auto tag, const View& a, const View& out) {
    sort_lines<typename decltype(tag)::type>(a, out, call.as<ops::SortParams>().axis);
  });
}

void argsort(const KernelCall& call) {
  with_type(call, [&](auto tag, const View& a, const View& out) {
    order_lines<typename decltype(tag)::type>(a, out, call.as<ops::SortParams>().axis, {});
  });
}

void argpartition(const KernelCall& call) {
  auto [axis, kth] = call.as<ops::PartitionParams>();
  with_type(call, [&, axis = axis, kth = kth](auto tag, const View& a, const View& out) {
    order_lines<typename decltype(tag)::type>(a, out, axis, kth);
  });
}

}  // namespace

void sort_kernels(KernelTable& registry) {
  registry.add(ops::sort_op, {.run = &sort, .layouts = {Layout::Any}});
  registry.add(ops::argsort_op, {.run = &argsort, .layouts = {Layout::Any}});
  registry.add(ops::argpartition_op, {.run = &argpartition, .layouts = {Layout::Any}});
}

}  // namespace mica::cpu
