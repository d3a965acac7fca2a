// Attention in float64: plain loops, a row at a time.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "backends/cpu/attention.h"
#include "base/thread_pool.h"

namespace mica::cpu {

namespace {

// One query row's keys: their slots, weights, and the slopes of the soft cap.
struct Row {
  std::vector<int64_t> slots;
  std::vector<double> weights, slopes;
};

const double* row_of(const View& view, int64_t b, int64_t h, int64_t i) {
  return view.as<double>() + AttentionJob::offset_of(view, b, h, i);
}

double dot(const double* x, const double* y, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

void weigh(const AttentionJob& job, int64_t b, int64_t h, int64_t i, Row& row) {
  const Sequence sequence = job.sequence(b);
  const int64_t position = sequence.offset + i, g = h / job.ratio;
  const double* q = row_of(job.q, b, h, i);
  double largest = -std::numeric_limits<double>::infinity(), total = 0;
  row.slots.clear();
  row.weights.clear();
  row.slopes.clear();
  for (const KeyRun& run : sequence.runs) {
    const KeyRun seen = job.seen_by_any(run, position, position);
    for (int64_t slot = seen.begin; slot < seen.end; ++slot) {
      double score = dot(q, row_of(job.k, b, g, slot), job.k_size) * job.params->scale;
      double slope = 1;
      if (const double cap = job.params->softcap; cap > 0) {
        const double t = std::tanh(score / cap);
        score = cap * t;
        slope = 1 - t * t;
      }
      if (job.mask.data) score += job.mask_at(b, h, i, slot);
      largest = std::max(largest, score);
      row.slots.push_back(slot);
      row.weights.push_back(score);
      row.slopes.push_back(slope);
    }
  }
  const double base = std::isinf(largest) && largest < 0 ? 0 : largest;
  for (double& w : row.weights) total += w = std::exp(w - base);
  for (double& w : row.weights) w = total == 0 ? 0 : w / total;
}

void add_scaled(double* sums, const double* x, double factor, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sums[i] += factor * x[i];
}

}  // namespace

void attention_doubles(const AttentionJob& job) {
  ThreadPool::shared().parallel_for(
      job.batch * job.heads * job.queries, 4, [&](int64_t begin, int64_t end) {
        Row row;
        for (int64_t r = begin; r < end; ++r) {
          const int64_t i = r % job.queries, h = r / job.queries % job.heads,
                        b = r / job.queries / job.heads;
          weigh(job, b, h, i, row);
          double* out = job.out.as<double>() + AttentionJob::offset_of(job.out, b, h, i);
          std::fill_n(out, job.v_size, 0.0);
          for (size_t j = 0; j < row.slots.size(); ++j)
            add_scaled(out, row_of(job.v, b, h / job.ratio, row.slots[j]), row.weights[j],
                       job.v_size);
        }
      });
}

void attention_backward_doubles(const AttentionJob& job, const AttentionCotangents& cotangents) {
  auto* dq = cotangents.q.as<double>();
  auto* dk = cotangents.k.as<double>();
  auto* dv = cotangents.v.as<double>();
  ThreadPool::shared().parallel_for(job.batch * job.kv_heads, 1, [&](int64_t begin, int64_t end) {
    Row row;
    std::vector<double> slope;
    for (int64_t n = begin; n < end; ++n) {
      const int64_t b = n / job.kv_heads, g = n % job.kv_heads;
      std::fill_n(dk + n * job.slots * job.k_size, job.slots * job.k_size, 0.0);
      std::fill_n(dv + n * job.slots * job.v_size, job.slots * job.v_size, 0.0);
      for (int64_t r = 0; r < job.rows(); ++r) {
        const int64_t h = job.head_of(g, r), i = r / job.ratio;
        const double *q = row_of(job.q, b, h, i), *given = row_of(cotangents.result, b, h, i);
        double* to = dq + ((b * job.heads + h) * job.queries + i) * job.k_size;
        weigh(job, b, h, i, row);
        slope.assign(row.slots.size(), 0);
        double mean = 0;
        for (size_t j = 0; j < slope.size(); ++j) {
          slope[j] = dot(given, row_of(job.v, b, g, row.slots[j]), job.v_size);
          mean += slope[j] * row.weights[j];
        }
        std::fill_n(to, job.k_size, 0.0);
        for (size_t j = 0; j < slope.size(); ++j) {
          const int64_t slot = row.slots[j], at = n * job.slots + slot;
          const double score =
              row.weights[j] * (slope[j] - mean) * row.slopes[j] * job.params->scale;
          add_scaled(to, row_of(job.k, b, g, slot), score, job.k_size);
          add_scaled(dk + at * job.k_size, q, score, job.k_size);
          add_scaled(dv + at * job.v_size, given, row.weights[j], job.v_size);
        }
      }
    }
  });
}

}  // namespace mica::cpu
