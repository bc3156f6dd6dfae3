package regions

import "github.com/shortline/shortline/geo"

// KnownPoint is where a region is that is named like one of the large clouds', or by its part of the world: a default for
// --region-point, right within some tens of kilometres.
func KnownPoint(id ID) (geo.Point, bool) {
	for _, p := range knownPoints {
		for _, name := range p.names {
			if name == id {
				return p.at, true
			}
		}
	}
	return geo.Point{}, false
}

// knownPoints are the places with the names that Amazon, Google and Azure have for them, and ours.
var knownPoints = []struct {
	at    geo.Point
	names []ID
}{
	{geo.Point{Lat: 39.0438, Lng: -77.4874}, []ID{"us-east", "us-east-1", "us-east4", "eastus", "eastus2"}},
	{geo.Point{Lat: 39.9612, Lng: -82.9988}, []ID{"us-east-2", "us-east5"}},
	{geo.Point{Lat: 33.196, Lng: -80.0131}, []ID{"us-east1"}},
	{geo.Point{Lat: 37.3382, Lng: -121.8863}, []ID{"us-west-1", "westus"}},
	{geo.Point{Lat: 45.8399, Lng: -119.7006}, []ID{"us-west", "us-west-2", "us-west1", "westus2"}},
	{geo.Point{Lat: 34.0522, Lng: -118.2437}, []ID{"us-west2"}},
	{geo.Point{Lat: 41.2619, Lng: -95.8608}, []ID{"us-central", "us-central1", "centralus"}},
	{geo.Point{Lat: 45.5017, Lng: -73.5673}, []ID{"ca-central-1", "northamerica-northeast1"}},
	{geo.Point{Lat: 43.6532, Lng: -79.3832}, []ID{"canadacentral", "northamerica-northeast2"}},
	{geo.Point{Lat: -23.5505, Lng: -46.6333}, []ID{"sa-east", "sa-east-1", "southamerica-east1", "brazilsouth"}},
	{geo.Point{Lat: 53.3498, Lng: -6.2603}, []ID{"eu-west", "eu-west-1", "northeurope"}},
	{geo.Point{Lat: 51.5074, Lng: -0.1278}, []ID{"eu-west-2", "europe-west2", "uksouth"}},
	{geo.Point{Lat: 48.8566, Lng: 2.3522}, []ID{"eu-west-3", "europe-west9", "francecentral"}},
	{geo.Point{Lat: 52.3676, Lng: 4.9041}, []ID{"europe-west4", "westeurope"}},
	{geo.Point{Lat: 50.4471, Lng: 3.8197}, []ID{"europe-west1"}},
	{geo.Point{Lat: 50.1109, Lng: 8.6821}, []ID{"eu-central", "eu-central-1", "europe-west3", "germanywestcentral"}},
	{geo.Point{Lat: 59.3293, Lng: 18.0686}, []ID{"eu-north-1", "swedencentral"}},
	{geo.Point{Lat: 60.5693, Lng: 27.1878}, []ID{"europe-north1"}},
	{geo.Point{Lat: 45.4642, Lng: 9.19}, []ID{"eu-south-1", "europe-west8", "italynorth"}},
	{geo.Point{Lat: 25.2048, Lng: 55.2708}, []ID{"me-central", "me-central-1", "uaenorth"}},
	{geo.Point{Lat: 26.0667, Lng: 50.5577}, []ID{"me-south-1"}},
	{geo.Point{Lat: -33.9249, Lng: 18.4241}, []ID{"af-south", "af-south-1"}},
	{geo.Point{Lat: -26.2041, Lng: 28.0473}, []ID{"africa-south1", "southafricanorth"}},
	{geo.Point{Lat: 19.076, Lng: 72.8777}, []ID{"ap-south", "ap-south-1", "asia-south1", "centralindia"}},
	{geo.Point{Lat: 1.3521, Lng: 103.8198}, []ID{"ap-southeast", "ap-southeast-1", "asia-southeast1", "southeastasia"}},
	{geo.Point{Lat: -6.2088, Lng: 106.8456}, []ID{"ap-southeast-3", "asia-southeast2"}},
	{geo.Point{Lat: 22.3193, Lng: 114.1694}, []ID{"ap-east-1", "asia-east2", "eastasia"}},
	{geo.Point{Lat: 24.0518, Lng: 120.5161}, []ID{"asia-east1"}},
	{geo.Point{Lat: 35.6762, Lng: 139.6503}, []ID{"ap-northeast", "ap-northeast-1", "asia-northeast1", "japaneast"}},
	{geo.Point{Lat: 34.6937, Lng: 135.5023}, []ID{"ap-northeast-3", "asia-northeast2", "japanwest"}},
	{geo.Point{Lat: 37.5665, Lng: 126.978}, []ID{"ap-northeast-2", "asia-northeast3", "koreacentral"}},
	{geo.Point{Lat: -33.8688, Lng: 151.2093}, []ID{"au-east", "ap-southeast-2", "australia-southeast1", "australiaeast"}},
}
