"""Train in your own loop, on scikit-learn's digits: one line puts the network under the chip."""

import torch
from sklearn.datasets import load_digits
from torch import nn

import qrsolve

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
x_train, y_train, x_test, y_test = x[:1400], y[:1400], x[1400:], y[1400:]

model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
epochs, batches = 10, torch.arange(1400).split(100)
projector = qrsolve.attach("dynap_se", model, optimizer, compliant="at_end", total_steps=epochs * len(batches))

for _ in range(epochs):
    order = torch.randperm(1400)
    for batch in batches:
        loss = nn.functional.cross_entropy(model(x_train[order[batch]]), y_train[order[batch]])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

projections = projector.finalize()
report = projector.check()
accuracy = float((model(x_test).argmax(dim=1) == y_test).float().mean())
for name, projection in projections.items():
    proof = projection.certificate
    print(f"{name}: {len(proof.violations)} violations, status {projection.status.value}")
print(f"compliant: {report.is_compliant}")
print(f"test accuracy: {accuracy:.3f}")
