package job

import (
	"cmp"
	"slices"
)

// WeightMax bounds the weight of a fairness key.
const WeightMax = 1000

// Weights are the weights of a queue's fairness keys, immutable once a queue has them.
type Weights struct {
	keys []KeyWeight // by key
}

// KeyWeight is the weight of one fairness key, 1 to WeightMax: how many times as much it gets as one of weight one.
type KeyWeight struct {
	Key    string
	Weight uint32
}

// NewWeights are the weights of the keys, of which no two are the same.
func NewWeights(keys []KeyWeight) *Weights {
	if len(keys) == 0 {
		return nil
	}
	return &Weights{keys: slices.SortedFunc(slices.Values(keys), func(a, b KeyWeight) int { return cmp.Compare(a.Key, b.Key) })}
}

// All are the keys with a weight, by key.
func (w *Weights) All() []KeyWeight {
	if w == nil {
		return nil
	}
	return w.keys
}

// Of is a key's weight: one, unless another was set.
func (w *Weights) Of(key string) uint64 {
	if w == nil {
		return 1
	}
	i, ok := slices.BinarySearchFunc(w.keys, key, func(k KeyWeight, key string) int { return cmp.Compare(k.Key, key) })
	if !ok {
		return 1
	}
	return uint64(w.keys[i].Weight)
}

// Equal reports whether two say the same.
func (w *Weights) Equal(o *Weights) bool { return w == o || slices.Equal(w.All(), o.All()) }
