package kubernetes

import "flag"

// update rewrites the goldens under testdata instead of comparing with them.
var update = flag.Bool("update", false, "rewrite the goldens")
