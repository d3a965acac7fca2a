"""Work so small that only the cost of a call counts: from Python, and a node in C++."""

from ruler.case import Case, Kind

PEERS = ("mlx", "torch", "jax", "numpy")
GOALS = {"mlx": 10.0, "torch": 5.0}


class SmallOp(Kind):
    def inputs(self, rng):
        return [rng.standard_normal(8, dtype="float32"), rng.standard_normal(8, dtype="float32")]

    def add(self, *_):
        return lambda x, y: x + y

    mx = torch = jax = numpy = add


class Chain(Kind):
    """A hundred additions and products in turn, evaluated once."""

    def inputs(self, rng):
        return [rng.uniform(0.9, 1.0, 8).astype("float32")]

    def chain(self, *_):
        def run(x):
            y = x
            for _ in range(50):
                y = y * x
                y = y + x
            return y
        return run

    mx = torch = jax = numpy = chain


class MlpGradient(Kind):
    """Loss and gradients of 8 rows through layers of 32, 64, 64 and 10."""

    SIZES = (32, 64, 64, 10)

    def inputs(self, rng):
        layers = list(zip(self.SIZES, self.SIZES[1:]))
        weights = [rng.standard_normal(shape, dtype="float32") * 0.1 for shape in layers]
        biases = [rng.standard_normal(n, dtype="float32") * 0.1 for _, n in layers]
        return [rng.standard_normal((8, 32), dtype="float32"), rng.standard_normal((8, 10), dtype="float32"),
                *weights, *biases]

    def _loss(self, maximum, mean):
        def loss(parameters, x, y):
            weights, biases = parameters[:3], parameters[3:]
            for i, (w, b) in enumerate(zip(weights, biases)):
                x = x @ w + b
                if i < 2:
                    x = maximum(x)
            return mean((x - y) * (x - y))
        return loss

    def mx(self, mx):
        gradient = mx.value_and_grad(self._loss(lambda x: mx.maximum(x, 0), mx.mean))
        return lambda x, y, *parameters: gradient(list(parameters), x, y)

    def torch(self, torch):
        loss = self._loss(torch.relu, torch.mean)

        def run(x, y, *parameters):
            parameters = [p.requires_grad_() for p in parameters]
            value = loss(parameters, x, y)
            return value, list(torch.autograd.grad(value, parameters))
        return run

    def jax(self, jax):
        gradient = jax.value_and_grad(self._loss(lambda x: jax.numpy.maximum(x, 0), jax.numpy.mean))
        return lambda x, y, *parameters: gradient(list(parameters), x, y)


def micro(name, benchmark, counter, goals, note):
    """A figure of build/bin/bench_core."""
    argv = ["{python}", "-m", "ruler.micro", "{build}/bin/bench_core", benchmark, counter]
    return Case(f"overhead/c++/{name}", None, {}, goals=goals, tolerance=None, seconds=1e-9,
                commands={"mica": argv}, note=note)


CASES = [
    Case("overhead/python/one-small-op", SmallOp, peers=PEERS, goals=GOALS, tolerance=1e-6),
    Case("overhead/python/chain-of-100", Chain, peers=PEERS, goals=GOALS, tolerance=1e-5),
    Case("overhead/python/mlp-gradient", MlpGradient, peers=PEERS[:3], goals=GOALS, tolerance=1e-4),
    micro("one-small-op", "OneSmallOp", "ns/node", {}, "built and evaluated"),
    micro("node-of-a-chain-of-100", "FusedChain/100", "ns/node", {"seconds": 150e-9},
          "built, planned from the cache, run fused, released"),
    micro("node-of-a-chain-of-1000", "FusedChain/1000", "ns/node", {"seconds": 150e-9}, "the same"),
    micro("node-unfused", "UnfusedChain/100", "ns/node", {"seconds": 150e-9}, "the same where nothing fuses"),
    micro("first-fusion-of-100", "FirstPlan/100", "real_time", {"seconds": 2e-3}, "a graph never seen before"),
    micro("first-fusion-of-500", "FirstPlan/500", "real_time", {"seconds": 2e-3}, "a graph never seen before"),
]
