"""Ten measured points of a rig: a law with a formula, a plot and standard deviations."""

import pandas as pd

import sciforge as sf

points = pd.read_csv(sf.datasets.find("ribbed-channel"), comment="#").sample(10, random_state=0)
columns = ["Re", "Pr", "e_D", "P_e", "alpha_deg", "W_H"]
law = sf.heat.NusseltLaw.pretrained("ribbed").fit(points[columns], points["Nu"])
nusselt, std = law.predict(points[columns], return_std=True)
assert (std > 0).all() and "Re" in str(law.formula())
assert law.plot("Re").figure is not None
assert abs(nusselt / points["Nu"].to_numpy() - 1).mean() < 0.1
